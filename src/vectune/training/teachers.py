"""Teachers by name: who scores queries and chunks for the model to learn from besides the judgments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vectune.embedders.factory import open_embedder
from vectune.embedders.loading import load_cross_encoder
from vectune.embedders.options import EmbedOptions
from vectune.embedders.settings import settings_of
from vectune.errors import UsageError
from vectune.lexical import BM25, fuse
from vectune.progress import Progress
from vectune.training.ground import Ground
from vectune.training.losses import Teacher
from vectune.training.options import TuneOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

LEXICAL = "lexical"
CROSS_ENCODER = "cross-encoder:"
EMBEDDER_TEMPERATURE = 0.05  # of a teacher's cosines, as the model's own
LEXICAL_WEIGHT = 0.5  # of BM25 beside the base's cosines


def open_teacher(
    options: TuneOptions, ground: Ground, models: Mapping[str, EmbedOptions], progress: Progress
) -> Teacher | None:
    """The teacher that the options name: ``lexical``, ``cross-encoder:NAME`` or any embedder's name.

    Args:
        options: name it.
        ground: texts and the base's vectors, for ``lexical``.
        models: settings of models behind an API, by name.
        progress: counts texts that are embedded.

    Raises:
        UsageError: a lexical teacher, and the data stay on disk.
        ModelError: there is no such model.
    """
    name = options.teacher
    if name is None:
        return None
    if name == LEXICAL:
        return _lexical(ground)
    if name.startswith(CROSS_ENCODER):
        return _cross_encoder(name.removeprefix(CROSS_ENCODER), options.trust_remote_code)
    own = replace(settings_of(name, models), trust_remote_code=options.trust_remote_code)
    embedder = open_embedder(name, own, progress=progress)

    def teach(queries: Sequence[str], chunks: Sequence[str]) -> Floats:
        cosines = embedder.embed_queries(queries) @ embedder.embed_documents(chunks).T
        return np.asarray(cosines / EMBEDDER_TEMPERATURE, dtype=np.float32)

    return teach


def _lexical(ground: Ground) -> Teacher:
    """BM25 and the untuned model, fused over the corpus as ``lexical.fuse`` does."""
    data = ground.data
    if data.on_disk:
        raise UsageError(
            "tune.teacher: 'lexical' needs the base's vectors of all chunks, and these stay on disk.",
            "Name an embedder, or train on fewer queries.",
        )
    index = BM25(data.chunks)
    query_rows = {text: row for row, text in enumerate(data.queries)}
    chunk_rows = {text: row for row, text in enumerate(data.chunks)}

    def teach(queries: Sequence[str], chunks: Sequence[str]) -> Floats:
        dense = ground.query_vectors[[query_rows[query] for query in queries]] @ ground.chunk_vectors.T
        scores = fuse(dense, index.all_scores(queries), LEXICAL_WEIGHT)
        found: Floats = scores[:, [chunk_rows[chunk] for chunk in chunks]]
        return found

    return teach


def _cross_encoder(name: str, trust_remote_code: bool) -> Teacher:
    """A reranker's scores before any sigmoid; each pair is one pass, so a step asks it queries × chunks times."""
    model = load_cross_encoder(name, trust_remote_code=trust_remote_code)

    def teach(queries: Sequence[str], chunks: Sequence[str]) -> Floats:
        pairs = [(query, chunk) for query in queries for chunk in chunks]
        scores = np.asarray(model.predict(pairs, show_progress_bar=False), dtype=np.float32)
        return scores.reshape(len(queries), len(chunks))

    return teach
