"""How much words count beside vectors: the weight of a word map, by held-out queries.

No judgment takes part in the fit of a map, so held-out queries tell what it gains on the chunks of the index. What it
does to chunks that come later is measured as well: by maps that have not seen the documents that held-out queries ask
about. A weight at which those are found less well than by the untuned model is not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vectune.embedders.models import ARTIFACT_FILE, INNER
from vectune.runs import check_output, write_json, writing
from vectune.training.adapter import Candidates, gains_clearly, leads
from vectune.training.blend import UNLABELLED_WEIGHT, WEIGHTS
from vectune.training.folders import marker
from vectune.words import WordFit, WordMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.dataset import RetrievalDataset
    from vectune.protocols import Vectors
    from vectune.training.problem import Problem, Rows
    from vectune.training.result import TuneResult

    Scores = NDArray[np.float64]

FRESH = 0.2  # share of the questions that are taken to be about chunks added since the map was fitted


@dataclass(frozen=True)
class HeldOut:
    """Queries held out, and their vectors by a training that did not see them.

    Attributes:
        rows: of the problem's queries.
        vectors: (len(rows), dim).
    """

    rows: Rows
    vectors: Vectors


@dataclass(frozen=True)
class Worded:
    """A word map and what held-out queries say of it.

    Attributes:
        map: fitted to the whole corpus.
        base: nDCG@10 of each held-out query by the untuned embedder, dev's first.
        before, after: the same without the map and with it.
        later: the mean where the map has not seen the documents that are asked about; as of chunks added later.
        dev: how many of the queries are dev's.
    """

    map: WordMap
    base: Scores
    before: Scores
    after: Scores
    later: float
    dev: int

    @property
    def gains(self) -> bool:
        """True where it leads clearly, as the best of several weights, and is not behind on dev."""
        return gains_clearly(self.after, self.before, self.dev)

    @property
    def note(self) -> str:
        """What a person should read about it."""
        if not self.gains:
            return "the words of queries added nothing on dev to what their vectors find."
        return (
            f"queries' words count {self.map.weight:g} beside their vectors: held-out nDCG@10 {self.before.mean():.3f} "
            f"without, {self.after.mean():.3f} with them, {self.later:.3f} on chunks that are added later; fit them "
            "again when many were."
        )

    def describe(self) -> dict[str, object]:
        """For ``chosen`` in the result."""
        means = {"before": self.before.mean(), "after": self.after.mean(), "later_chunks": self.later}
        return {"weight": self.map.weight, "words": len(self.map.words.vocabulary), **_rounded(means)}


def words_of(
    dataset: RetrievalDataset, problem: Problem, texts: Sequence[str], held_out: Sequence[HeldOut], seed: int
) -> Worded:
    """``add_words`` for a dataset; ``texts`` are those of the problem's queries."""
    chunks = list(dataset.corpus.values())
    contents, documents = [chunk.content for chunk in chunks], [chunk.document_id for chunk in chunks]
    return add_words(problem, texts, contents, documents, held_out, seed, dataset.generated)


def write_words(out: Path, words: WordMap, write_vectors: Callable[[Path], None], result: TuneResult) -> None:
    """Write the artifact folder of a word map, whole or not at all.

    Args:
        out: the folder.
        words: the map.
        write_vectors: writes the artifact that makes the vectors into the folder it is given.
        result: what to tell.

    Raises:
        OutputError: ``out`` holds something that vectune did not write, or cannot be written.
    """
    check_output(out, ARTIFACT_FILE)
    with writing(out) as beside:
        beside.mkdir(parents=True)
        write_vectors(beside / INNER)
        words.save(beside)
        write_json(beside / ARTIFACT_FILE, marker("words", result))


def add_words(
    problem: Problem,
    texts: Sequence[str],
    contents: Sequence[str],
    documents: Sequence[str],
    held_out: Sequence[HeldOut],
    seed: int = 0,
    generated: bool = False,
) -> Worded:
    """Fit a map to the corpus and choose its weight.

    Args:
        problem: its documents' vectors are what the map is fitted to.
        texts: of ``problem.queries``.
        contents: of the chunks.
        documents: which document each chunk belongs to.
        held_out: at least one; the first one's queries are dev's.
        seed: of the sample of candidates in large corpora.
        generated: queries that a machine wrote share more words with their chunks than people's do, and may choose a
            weight up to ``UNLABELLED_WEIGHT`` alone.
    """
    fit = WordFit(contents, problem.documents)
    whole, owners = fit.fit(0.0), np.asarray(documents)
    weights = [weight for weight in WEIGHTS if not generated or weight <= UNLABELLED_WEIGHT]
    seen: dict[float, list[Scores]] = {weight: [] for weight in weights}
    later: dict[float, list[Scores]] = {weight: [] for weight in weights}
    base = []
    for part in held_out:
        among, asked = Candidates(problem, part.rows, seed), [texts[row] for row in part.rows]
        base.append(among.score(problem.queries[part.rows]))
        new = np.isin(owners, owners[problem.positives.take(part.rows).rows.ravel()])
        for found, words in ((seen, whole), (later, fit.fit(0.0, without=new))):
            for weight in weights:
                found[weight].append(among.score(words.weighing(weight).apply(part.vectors, asked)))
    joined, joined_later = ({w: np.concatenate(found[w]) for w in weights} for found in (seen, later))
    weight = _choose(joined, joined_later, np.concatenate(base))
    after, dev = joined[weight], len(held_out[0].rows)
    return Worded(
        whole.weighing(weight), np.concatenate(base), joined[0.0], after, float(joined_later[weight].mean()), dev
    )


def _choose(seen: dict[float, Scores], later: dict[float, Scores], base: Scores) -> float:
    """The best weight where a share of ``FRESH`` of the questions are about chunks that the map has not seen.

    Weights end with the first at which those chunks are found less well than by the untuned model, by more than noise.
    """
    best, most = 0.0, -1.0
    for weight in sorted(seen):
        if leads(base, later[weight], 1.0):
            break
        value = float((1 - FRESH) * seen[weight].mean() + FRESH * later[weight].mean())
        if value > most:
            best, most = weight, value
    return best


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in values.items()}
