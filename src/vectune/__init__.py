"""From a folder of documents to an embedding model that retrieves them better, with proof."""

__version__ = "0.1.0"
