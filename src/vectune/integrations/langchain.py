"""Any of vectune's embedders as LangChain's Embeddings.

::

    from vectune.integrations.langchain import VectuneEmbeddings

    store = InMemoryVectorStore.from_texts(texts, embedding=VectuneEmbeddings("run/model"))
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from vectune.embedders.factory import Source, open_embedder
from vectune.embedders.models import DEFAULT_MODEL
from vectune.embedders.options import DEFAULTS, EmbedOptions
from vectune.errors import MissingExtraError
from vectune.integrations.turns import Turns

try:
    from langchain_core.embeddings import Embeddings
except ImportError:
    raise MissingExtraError("langchain-core", "langchain", "vectune.integrations.langchain") from None


class VectuneEmbeddings(Embeddings):
    """Queries and documents get the prompts, routes and adapters of their role; vectors have unit norm.

    Calls from several threads, as LangChain's async methods make them, wait for each other.

    Args:
        model: a model's name, a folder that ``tune`` wrote (a model, an adapter, a query encoder), ``openai:NAME``,
            an embedder, or two functions.
        options: how a name is opened, see ``EmbedOptions``.
        cache: look vectors up in vectune's cache on disk, and keep new ones there.

    Raises:
        ModelError: there is no such model, or it cannot be loaded.
    """

    def __init__(self, model: Source = DEFAULT_MODEL, *, options: EmbedOptions = DEFAULTS, cache: bool = False) -> None:
        self.model = str(model) if isinstance(model, str | Path) else getattr(model, "name", "functions")
        self.embedder = open_embedder(model, options, cache)
        self._lock = Turns()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text, in order."""
        with self._lock:
            return cast("list[list[float]]", self.embedder.embed_documents(texts).tolist())

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        with self._lock:
            return cast("list[float]", self.embedder.embed_queries([text])[0].tolist())
