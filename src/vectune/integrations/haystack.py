"""Any of vectune's embedders as Haystack components: one for queries, one for documents.

::

    from vectune.integrations.haystack import VectuneDocumentEmbedder, VectuneTextEmbedder

    pipeline.add_component("embedder", VectuneTextEmbedder("run/model"))

Haystack 3 opens a pipeline's file only with modules it is told to trust:
``Pipeline.loads(text, allowed_modules=["vectune.integrations.haystack"])``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vectune.embedders.factory import open_embedder
from vectune.embedders.models import DEFAULT_MODEL
from vectune.embedders.options import DEFAULTS, EmbedOptions
from vectune.embedders.settings import options_from, to_keep
from vectune.errors import MissingExtraError, UsageError

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ImportError:
    raise MissingExtraError("haystack-ai", "haystack", "vectune.integrations.haystack") from None

if TYPE_CHECKING:
    from vectune.protocols import Embedder


@component
class VectuneTextEmbedder:
    """The vector of a query, with the prompt, route and adapter of queries; unit norm.

    Args:
        model: a model's name, a folder that ``tune`` wrote, or ``openai:NAME``.
        options: how it is opened. An API key in them is not written into a pipeline's file.
        cache: look vectors up in vectune's cache on disk, and keep new ones there.
    """

    def __init__(self, model: str = DEFAULT_MODEL, options: EmbedOptions = DEFAULTS, cache: bool = False) -> None:
        self.model, self.options, self.cache = str(model), options, cache
        self._embedder: Embedder | None = None

    def warm_up(self) -> None:
        """Load the model; ``run`` does so by itself where nobody did.

        Raises:
            ModelError: there is no such model, or it cannot be loaded.
        """
        if self._embedder is None:
            self._embedder = open_embedder(self.model, self.options, self.cache)

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """``embedding`` of the text, and ``meta`` with the model's name.

        Raises:
            UsageError: it is not a text.
        """
        if not isinstance(text, str):
            raise UsageError(
                f"VectuneTextEmbedder embeds one text, not a {type(text).__name__}.", "Use VectuneDocumentEmbedder."
            )
        self.warm_up()
        assert self._embedder is not None
        return {"embedding": self._embedder.embed_queries([text])[0].tolist(), "meta": {"model": self.model}}

    def to_dict(self) -> dict[str, Any]:
        """What a pipeline's file keeps."""
        saved: dict[str, Any] = default_to_dict(self, model=self.model, options=to_keep(self.options), cache=self.cache)
        return saved

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VectuneTextEmbedder:
        """The component as a pipeline's file has it."""
        component: VectuneTextEmbedder = default_from_dict(cls, _opened(data))
        return component


@component
class VectuneDocumentEmbedder:
    """Documents with their vectors, all in one call to the model; unit norm.

    Args:
        model: a model's name, a folder that ``tune`` wrote, or ``openai:NAME``.
        options: how it is opened. An API key in them is not written into a pipeline's file.
        cache: look vectors up in vectune's cache on disk, and keep new ones there.
        meta_fields_to_embed: fields of a document's meta that are put before its content.
        embedding_separator: between them.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        options: EmbedOptions = DEFAULTS,
        cache: bool = False,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
    ) -> None:
        self.model, self.options, self.cache = str(model), options, cache
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator
        self._embedder: Embedder | None = None

    def warm_up(self) -> None:
        """Load the model; ``run`` does so by itself where nobody did.

        Raises:
            ModelError: there is no such model, or it cannot be loaded.
        """
        if self._embedder is None:
            self._embedder = open_embedder(self.model, self.options, self.cache)

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """``documents`` with embeddings, the given ones unchanged, and ``meta`` with the model's name.

        Raises:
            UsageError: it is not a list of documents.
        """
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise UsageError("VectuneDocumentEmbedder embeds a list of Documents.", "Use VectuneTextEmbedder.")
        self.warm_up()
        assert self._embedder is not None
        vectors = self._embedder.embed_documents([self._text(document) for document in documents])
        found = [replace(d, embedding=v) for d, v in zip(documents, vectors.tolist(), strict=True)]
        return {"documents": found, "meta": {"model": self.model}}

    def _text(self, document: Document) -> str:
        fields = [str(document.meta[name]) for name in self.meta_fields_to_embed if document.meta.get(name) is not None]
        return self.embedding_separator.join([*fields, document.content or ""])

    def to_dict(self) -> dict[str, Any]:
        """What a pipeline's file keeps."""
        saved: dict[str, Any] = default_to_dict(
            self,
            model=self.model,
            options=to_keep(self.options),
            cache=self.cache,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
        )
        return saved

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VectuneDocumentEmbedder:
        """The component as a pipeline's file has it."""
        component: VectuneDocumentEmbedder = default_from_dict(cls, _opened(data))
        return component


def _opened(data: dict[str, Any]) -> dict[str, Any]:
    """With options as ``EmbedOptions``."""
    parameters = dict(data.get("init_parameters", {}))
    options = options_from(parameters.get("options") or {}, str(data.get("type")))
    return {**data, "init_parameters": {**parameters, "options": options}}
