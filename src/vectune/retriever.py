"""Retriever: what a run found best on dev, as an artifact that answers queries: vectors, BM25 or both.

A retriever folder holds ``retriever.json``, ``bm25/`` and ``vectors.npy`` (as far as its weight needs them)::

    {"vectune": "0.1.0", "kind": "hybrid" | "dense" | "bm25", "weight": 0.7,   weight of BM25's z-score
     "model": NAME | null, "fingerprint": "...", "dim": 384,
     "models": {NAME: settings of a model behind an API, without its key},
     "bm25": {"language": "en", "k1": 1.5, "b": 0.75} | null,
     "dataset": "../dataset",                      where the chunks' texts are, relative to this folder
     "chunks": 699, "corpus": "sha-256 of the chunks' ids and contents",
     "chosen_on": "dev", "queries": 80, "curve": {"0": 0.44, ..., "1": 0.72},  nDCG@10 on dev by weight
     "before_tuning": false}                       whether that is with queries as they are before tuning
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectune.board import Row, figure
from vectune.dataset import RetrievalDataset, corpus_hash
from vectune.embedders.options import DEFAULTS
from vectune.errors import DatasetError, FingerprintError, InputError, ModelError
from vectune.progress import SILENT, Progress
from vectune.records import Chunk
from vectune.runs import Json, write_json, writing

if TYPE_CHECKING:
    from vectune.embedders.settings import Settings
    from vectune.products import Floats
    from vectune.protocols import Embedder
    from vectune.rankers import Ranker

RETRIEVER_FILE = "retriever.json"


@dataclass(frozen=True)
class Hit:
    """A chunk that was found; higher scores are better, and only comparable within one query."""

    chunk: Chunk
    score: float


class Retriever:
    """Answers queries from a retriever folder. Open one with ``Retriever.open``."""

    def __init__(self, folder: Path, facts: Json, dataset: RetrievalDataset, settings: Settings = DEFAULTS) -> None:
        self.folder, self.facts, self.dataset, self.settings = folder, facts, dataset, settings

    @classmethod
    def open(cls, path: str | Path, settings: Settings = DEFAULTS) -> Retriever:
        """Open a retriever folder, or the one in a run folder.

        Args:
            path: the folder.
            settings: how a model behind an API is asked, over what the folder keeps; see ``open_embedder``.

        Raises:
            InputError: there is none.
            DatasetError: the dataset is missing, or is not the one the retriever was made for.
        """
        folder = next(
            (each for each in (Path(path), Path(path) / "retriever") if (each / RETRIEVER_FILE).is_file()), None
        )
        if folder is None:
            raise InputError(f"{path}: holds no {RETRIEVER_FILE}.", "Give a folder that `vectune run ... --out` wrote.")
        try:
            facts = json.loads((folder / RETRIEVER_FILE).read_text(encoding="utf-8"))
            place = folder / str(facts["dataset"])
            made_for, _ = facts["corpus"], facts["kind"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"is not a retriever ({error}).", path=folder / RETRIEVER_FILE) from None
        dataset = RetrievalDataset.read(place)
        if corpus_hash(dataset) != made_for:
            raise DatasetError(f"{place}: its chunks have changed since the retriever was made.", _anew(folder))
        return cls(folder, facts, dataset, settings)

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The best ``k`` chunks for a query, best first; fewer where nothing more is found.

        Raises:
            FingerprintError: the model is not the one whose vectors are stored.
            ModelError: the model cannot be loaded, or the stored vectors are damaged.
        """
        return self.search_all([query], k)[0]

    def search_all(self, queries: Sequence[str], k: int = 10) -> list[list[Hit]]:
        """``search`` for several queries at once, in their order."""
        if not queries:
            return []
        vectors = None if self.embedder is None else self._query_vectors(self.embedder, queries)
        corpus, ids = self.dataset.corpus, self._ids
        return [
            [Hit(corpus[ids[index]], float(score)) for index, score in zip(indices, scores, strict=True)]
            for indices, scores in self._ranker.rank(queries, vectors, k)
        ]

    def _query_vectors(self, embedder: Embedder, queries: Sequence[str]) -> Floats:
        from vectune.encoding import checked, truncated

        name, dims = embedder.name, int(self.facts.get("dims") or 0)
        vectors = checked(embedder.embed_queries(list(queries)), queries, embedder.dim, name, "query")
        return truncated(vectors, dims, name) if dims else vectors

    @cached_property
    def embedder(self) -> Embedder | None:
        """The model that embeds queries; None for BM25 alone."""
        if self.facts["kind"] == "bm25":
            return None
        from vectune.embedders.factory import open_embedder
        from vectune.embedders.settings import kept_settings

        name = str(self.facts["model"])
        inside = (self.folder / name).resolve()
        settings = kept_settings(name, self.facts, self.settings, self.folder / RETRIEVER_FILE)
        embedder = open_embedder(str(inside) if inside.is_dir() else name, settings, cache=False)
        if embedder.fingerprint != self.facts["fingerprint"]:
            raise FingerprintError(
                f"{name} is not the model whose vectors {self.folder} holds.",
                f"Restore the model. Or: {_anew(self.folder)}",
            )
        return embedder

    @cached_property
    def _ids(self) -> list[str]:
        return list(self.dataset.corpus)

    @cached_property
    def _ranker(self) -> Ranker:
        from vectune.lexical import BM25
        from vectune.rankers import Dense, Hybrid, Lexical
        from vectune.retrieval import tie_order

        ties, kind = tie_order(self._ids), self.facts["kind"]
        if kind == "bm25":
            return Lexical(BM25.load(self.folder / "bm25"), ties)
        vectors = self._vectors()
        if kind == "dense":
            return Dense(vectors, ties)
        return Hybrid(BM25.load(self.folder / "bm25"), vectors, float(self.facts["weight"]), ties)

    def _vectors(self) -> Floats:
        """The stored vectors, mapped and not read: their shape and the file's size are looked at."""
        import numpy as np

        path, again = self.folder / "vectors.npy", f"Restore the file. Or: {_anew(self.folder)}"
        try:
            vectors: Floats = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ModelError(f"{path}: the stored vectors cannot be read ({error}).", again) from None
        expected = (int(self.facts["chunks"]), int(self.facts["dim"]))
        if vectors.shape != expected or vectors.dtype != np.float32:
            found = f"{vectors.dtype} of shape {vectors.shape}"
            raise ModelError(f"{path}: holds {found}; the retriever was made with float32 of {expected}.", again)
        return vectors


def save_retriever(
    target: Path,
    dataset: RetrievalDataset,
    row: Row,
    *,
    cache: bool = True,
    progress: Progress = SILENT,
    settings: Settings = DEFAULTS,
) -> Retriever:
    """Write the retriever that a hybrid row stands for: with the weight 0 vectors alone, with 1 BM25 alone.

    Args:
        target: the folder to write, whole or not at all; usually ``RUN/retriever``.
        dataset: a dataset that is on disk; the folder refers to it.
        row: a row of the board named ``hybrid:NAME`` or ``bm25`` or an embedder's name.
        cache: look the corpus's vectors up in the cache, where the evaluation left them.
        progress: counts the chunks that are embedded.
        settings: how the row's model is opened; what an API was asked with is kept.

    Raises:
        DatasetError: the dataset is only in memory.
    """
    from vectune import __version__
    from vectune.embedders.settings import table_of
    from vectune.encoding import EncodedDataset, truncated
    from vectune.rankers import parse_name

    if dataset.path is None:
        raise DatasetError("the dataset is only in memory; a retriever refers to one on disk.", "Write it first.")
    name = parse_name(row.name)
    weight = float(row.details.get("weight", 0.0 if name.model else 1.0))
    kind = "bm25" if weight == 1 else "dense" if weight == 0 else "hybrid"
    language = None if kind == "dense" else row.details["language"]  # without BM25 there is nothing to stem
    encoded = EncodedDataset(dataset, language=language, cache=cache, progress=progress, settings=settings)
    facts: Json = {"vectune": __version__, "kind": kind, "weight": weight, "model": None, "bm25": None}
    with writing(target) as beside:
        beside.mkdir(parents=True)
        if kind != "bm25":
            encoder = encoded.encoder(name.model, name.model)
            vectors = truncated(encoder.corpus, name.dims, row.name) if name.dims else encoder.corpus
            _save_vectors(beside / "vectors.npy", vectors)
            facts |= {"model": _relative(name.model, target), "fingerprint": encoder.embedder.fingerprint}
            facts |= {"dim": int(vectors.shape[1]), "dims": name.dims, "models": table_of(encoder.embedder)}
        if kind != "dense":
            bm25 = encoded.bm25
            bm25.save(beside / "bm25")
            facts["bm25"] = {"language": bm25.analyzer.language, "k1": bm25.k1, "b": bm25.b}
        facts |= {"dataset": _relative(str(dataset.path), target), "chunks": len(dataset.corpus)}
        facts |= {"corpus": corpus_hash(dataset)}
        told = ("chosen_on", "queries", "curve", "before_tuning")
        facts |= {key: row.details[key] for key in told if key in row.details}
        write_json(beside / RETRIEVER_FILE, facts)
    return Retriever(target, facts, dataset, settings)


def fusion_note(details: Mapping[str, Any]) -> str:
    """What dev said about a weight of BM25, in a sentence; empty where nothing was chosen.

    Args:
        details: of a hybrid row, or the content of a ``retriever.json``.
    """
    curve = {float(weight): float(value) for weight, value in (details.get("curve") or {}).items()}
    if not curve:
        return ""
    weight = float(details["weight"])
    named = "the model before tuning" if details.get("before_tuning") else "the model"
    alone = {named: figure(curve[0.0]), "BM25": figure(curve[1.0])}
    if weight in (0.0, 1.0):
        kept, other = (named, "BM25") if weight == 0 else ("BM25", named)
        if alone[kept] == alone[other]:
            return f"On dev {kept} alone is as good as {other} (nDCG@10 {alone[kept]})."
        return f"On dev {kept} alone is best (nDCG@10 {alone[kept]}; {other} {alone[other]})."
    best = figure(curve[weight])
    equal = [name for name, value in alone.items() if value == best]
    how = f"as good as {' or '.join(equal)} alone" if equal else "best"
    others = ", ".join(f"{name} {value}" for name, value in alone.items() if name not in equal)
    return f"On dev the hybrid with BM25's weight {weight:g} is {how}: nDCG@10 {best}{'; ' if others else ''}{others}."


def _anew(folder: Path) -> str:
    """What helps where a part of a retriever is not what it was made of: a run makes what is missing, and only that."""
    return f"Remove {folder}, then repeat the vectune run that made it."


def _relative(name: str, folder: Path) -> str:
    """A folder's path from ``folder``, so that a run may be moved as a whole; other names as they are."""
    return os.path.relpath(Path(name).resolve(), folder.resolve()) if Path(name).is_dir() else name


def _save_vectors(path: Path, vectors: Floats) -> None:
    import numpy as np

    np.save(path, np.asarray(vectors, dtype=np.float32), allow_pickle=False)
