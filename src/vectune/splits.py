"""Splits: by document and by group of near-duplicates, with the check that nothing leaks.

Train, dev and test share no document and no near-duplicate of a chunk. Where a corpus has too few documents to be
divided, documents are cut into contiguous sections, and a gap of chunks between two sections belongs to no side.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from vectune import bulk
from vectune.characters import wording
from vectune.dataset import SPLITS, Qrels, RetrievalDataset
from vectune.duplicates import near_duplicate_groups
from vectune.errors import ContaminationError, DatasetError, UsageError, check_bounds
from vectune.records import Chunk

MIN_DOCUMENTS = 8  # where fewer documents than this hold positives, documents are cut into sections
MOST_KNOWN = 4  # corpora whose near-duplicates are remembered
MAX_SECTIONS = 3  # of one side: several show more of a document, each costs two gaps


@dataclass(frozen=True)
class SplitOptions:
    """How to divide the queries.

    Attributes:
        dev: share of the queries for dev.
        test: share of the queries for test.
        gap: chunks left out between two sections of one document that go to different sides.
        near_duplicate: Jaccard similarity from which two chunks count as the same; 1 switches the search off.
        seed: another seed gives another division; the same one always the same.
    """

    dev: float = 0.1
    test: float = 0.2
    gap: int = 3
    near_duplicate: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value: queries are paid for before they are divided.

        Raises:
            UsageError: one that makes no sense, or shares that leave nothing to train on.
        """
        check_bounds("split", self, {"dev": (0, 1), "test": (0, 1), "gap": (0, inf)}, ("near_duplicate",))
        if self.dev + self.test >= 1:
            raise UsageError(f"the shares split.dev={self.dev} and split.test={self.test} leave nothing to train on.")


@dataclass(frozen=True)
class Finding:
    """Something two splits share.

    Attributes:
        kind: ``document``, ``near-duplicate`` or ``query``.
        splits: the two splits.
        shared: ids: the document's; those of the two chunks; those of the two queries.
        count: how many judgments of the later split are affected.
    """

    kind: str
    splits: tuple[str, str]
    shared: tuple[str, ...]
    count: int = 1

    def __str__(self) -> str:
        what = {
            "document": "hold positives in the document {0}",
            "near-duplicate": "hold the near-duplicate chunks {0} and {1}",
            "query": "hold the same query ({0} and {1})",
        }[self.kind]
        return f"{self.splits[0]} and {self.splits[1]} both {what.format(*map(repr, self.shared))}"


# Dividing


def split_by_document(
    corpus: Mapping[str, Chunk], qrels: Qrels, options: SplitOptions = SplitOptions()
) -> dict[str, Qrels]:
    """Divide judged queries into train, dev and test so that no two splits share a document or near-duplicates.

    Documents are units; documents with near-duplicate chunks, and documents that answer one query, are one unit. With
    positives in fewer than ``MIN_DOCUMENTS`` documents, contiguous sections are cut instead. Queries whose positives
    touch a gap or two sides are left out.

    Returns:
        ``{"train": …, "dev": …, "test": …}``; a split with a share of 0 is absent.

    Raises:
        DatasetError: there are too few queries.
    """
    shares = {"test": options.test, "dev": options.dev}
    found: dict[str, Qrels] = {}
    rest, few = qrels, _few_documents(corpus, qrels)
    for name, share in shares.items():
        if share > 0:
            wanted = round(share * len(qrels))
            found[name], rest = _cut(corpus, rest, max(wanted, 1), options, sections=few)
    found["train"] = rest
    if not all(found.values()):
        empty = ", ".join(name for name in found if not found[name])
        raise DatasetError(
            f"{len(qrels)} queries over {len(corpus)} chunks are too few to divide: nothing is left for {empty}.",
            "Add documents or queries, or set the shares of dev and test to 0.",
        )
    return {name: found[name] for name in SPLITS if name in found}


def with_dev(dataset: RetrievalDataset, seed: int = 0, share: float = 0.2, most: int = 500) -> RetrievalDataset:
    """The dataset with a dev split: its own, or one cut from train by document (by section where documents are few).

    Stable: depends on the seed and the ids, not on the order of queries. About ``share`` of the train queries, but no
    more than about ``most`` of them, become dev; documents are taken whole up to twice as many. What is asked in dev is
    not asked in train.

    Raises:
        DatasetError: there is no train split, or it is too small to be cut.
    """
    if dataset.qrels.get("dev"):
        return dataset
    if bulk.is_bulk(dataset):
        return bulk.cut_dev(dataset, seed, share, most)
    train = dataset.split("train")
    wanted = max(min(round(share * len(train)), most), 1)
    few = _few_documents(dataset.corpus, train)
    dev, rest = _cut(dataset.corpus, train, wanted, SplitOptions(seed=seed), sections=few)
    if len(dev) > 2 * wanted:  # each document has so many queries
        drawn = set(sorted(dev, key=lambda query: _draw(query, seed))[:wanted])
        dev = {query: chunks for query, chunks in dev.items() if query in drawn}
    asked = {wording(dataset.queries[query].text) for query in dev}
    rest = {query: chunks for query, chunks in rest.items() if wording(dataset.queries[query].text) not in asked}
    if not dev or not rest:
        different = len({wording(dataset.queries[query].text) for query in train})
        count = f"{len(train)} queries" + f", {different} different" * (different < len(train))
        raise DatasetError(
            f"the train split of '{dataset.name}' ({count}) is too small to cut a dev split from it.",
            "Add queries, or qrels/dev.tsv.",
        )
    return replace(dataset, qrels={**dataset.qrels, "train": rest, "dev": dev})


def _few_documents(corpus: Mapping[str, Chunk], qrels: Qrels) -> bool:
    return len({corpus[chunk].document_id for chunks in qrels.values() for chunk in chunks}) < MIN_DOCUMENTS


def _cut(
    corpus: Mapping[str, Chunk], qrels: Qrels, wanted: int, options: SplitOptions, sections: bool
) -> tuple[Qrels, Qrels]:
    """About ``wanted`` queries, and the other queries that share nothing with them; what lies between is dropped."""
    inside = (_sections if sections else _documents)(corpus, qrels, wanted, options)
    near = set(inside)
    for group in near_duplicates(corpus, options.near_duplicate):
        if inside & set(group):
            near.update(group)
    if sections:
        near |= _around(corpus, inside, options.gap)
    return _sides(qrels, inside, near)


def _sides(qrels: Qrels, inside: set[str], near: set[str]) -> tuple[Qrels, Qrels]:
    """Queries with all positives inside, and those with none near."""
    held = {query: chunks for query, chunks in qrels.items() if inside.issuperset(chunks)}
    return held, {query: chunks for query, chunks in qrels.items() if not near & chunks.keys()}


def _documents(corpus: Mapping[str, Chunk], qrels: Qrels, wanted: int, options: SplitOptions) -> set[str]:
    """All chunks of whole documents that hold the positives of about ``wanted`` queries."""
    unit_of = _units(corpus, qrels, options.near_duplicate)
    load: dict[str, int] = {}
    for chunks in qrels.values():
        unit = unit_of[corpus[next(iter(chunks))].document_id]
        load[unit] = load.get(unit, 0) + 1
    chosen: set[str] = set()
    for unit in sorted(load, key=lambda unit: _draw(unit, options.seed)):
        # a unit that overshoots by more than it brings near is passed over: sizes are by share of queries
        if 0 < wanted and load[unit] <= 2 * wanted:
            chosen.add(unit)
            wanted -= load[unit]
    if load and not chosen:  # one with too many queries is better than none
        chosen.add(min(load, key=lambda unit: (load[unit], _draw(unit, options.seed))))
    return {key for key, chunk in corpus.items() if unit_of.get(chunk.document_id) in chosen}


def _units(corpus: Mapping[str, Chunk], qrels: Qrels, threshold: float) -> dict[str, str]:
    """Judged document → its unit. Documents with near-duplicate chunks, or that answer one query, are one unit.

    Where that would make nearly everything one unit (boilerplate in every contract), each document stays its own, and
    the queries between two sides are dropped instead.
    """
    documents = {corpus[chunk].document_id for chunks in qrels.values() for chunk in chunks}
    joined = _Joined()
    for chunks in qrels.values():
        joined.join(corpus[chunk].document_id for chunk in chunks)
    for group in near_duplicates(corpus, threshold):
        joined.join(document for chunk in group if (document := corpus[chunk].document_id) in documents)
    units = {document: joined.root(document) for document in documents}
    sizes = Counter(units.values())
    if len(sizes) < MIN_DOCUMENTS or max(sizes.values()) > len(documents) // 2:
        return {document: document for document in documents}
    return units


def _sections(corpus: Mapping[str, Chunk], qrels: Qrels, wanted: int, options: SplitOptions) -> set[str]:
    """Contiguous runs of chunks with about ``wanted`` queries; a few runs where each can be long beside its gaps."""
    place, order = _places(corpus)
    load = Counter(min(place[chunk] for chunk in chunks) for chunks in qrels.values())
    marks = sorted(load)
    expected = len(marks) * wanted // max(len(qrels), 1)  # chunks to be taken
    runs = max(1, min(MAX_SECTIONS, expected // (4 * max(options.gap, 1))))
    from_end = int(_draw("section", options.seed)[:8], 16) % 2 == 0
    inside: set[str] = set()
    for run in range(runs):
        strip = marks[run * len(marks) // runs : (run + 1) * len(marks) // runs]
        taken: list[int] = []
        for mark in reversed(strip[1:]) if from_end else strip[:-1]:  # never a whole strip: something must stay
            if sum(load[position] for position in taken) >= wanted / runs:
                break
            taken.append(mark)
        if taken:
            inside.update(order[min(taken) : max(taken) + 1])
    return inside


def _around(corpus: Mapping[str, Chunk], inside: set[str], gap: int) -> set[str]:
    """The section's chunks and ``gap`` chunks before and after it in the same document."""
    place, order = _places(corpus)
    found = set(inside)
    for key in inside:
        neighbours = order[max(place[key] - gap, 0) : place[key] + gap + 1]
        found.update(other for other in neighbours if corpus[other].document_id == corpus[key].document_id)
    return found


def _places(corpus: Mapping[str, Chunk]) -> tuple[dict[str, int], list[str]]:
    """Chunks in reading order: documents as they come in the corpus, within one by offset (or by place in the file)."""
    rank: dict[str, int] = {}
    for chunk in corpus.values():
        rank.setdefault(chunk.document_id, len(rank))
    order = sorted(corpus, key=lambda key: (rank[corpus[key].document_id], corpus[key].start))  # stable
    return {key: position for position, key in enumerate(order)}, order


def _draw(key: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\x1f{key}".encode("utf-8", "surrogatepass")).hexdigest()


# What training may use


def train_pool(dataset: RetrievalDataset, options: SplitOptions = SplitOptions()) -> set[str]:
    """Ids of the chunks that may serve as negatives (or as distillation targets) while training.

    Every chunk of a document that holds a positive of dev or test is out, and so is every near-duplicate of such a
    chunk: a model that learns to avoid them loses exactly the queries it is judged by. Documents without judgments
    stay in. Where dev or test shares a document with train (a corpus cut by section), only the run of chunks from the
    section's first to its last positive, and the gap around it, is out.
    """
    held = {chunk for split in ("dev", "test") for chunks in dataset.qrels.get(split, {}).values() for chunk in chunks}
    trained = {chunk for chunks in dataset.qrels.get("train", {}).values() for chunk in chunks}
    train_documents = {dataset.corpus[chunk].document_id for chunk in trained}
    out: set[str] = set()
    for document in {dataset.corpus[chunk].document_id for chunk in held}:
        chunks = sorted(dataset.chunks_of[document], key=lambda key: dataset.corpus[key].start)
        out.update(_held_section(chunks, held, trained, options.gap) if document in train_documents else chunks)
    for group in near_duplicates(dataset.corpus, options.near_duplicate):
        if out & set(group):
            out.update(group)
    return set(dataset.corpus) - (out - trained)


def _held_section(chunks: list[str], held: set[str], trained: set[str], gap: int) -> set[str]:
    """The chunks of a shared document that lie nearer to a held positive than training may come."""
    marks = [position for position, chunk in enumerate(chunks) if chunk in held]
    found: set[str] = set()
    for start, end in zip(marks, [*marks[1:], marks[-1]], strict=True):
        between = chunks[start : end + 1]
        # between two held positives nothing was trained on: all of it is the held side's section
        found.update(between if not trained & set(between) else (chunks[start], chunks[end]))
        found.update(chunks[max(start - gap, 0) : start + gap + 1])
    return found


# The check


def check_contamination(
    dataset: RetrievalDataset, *, allow: bool = False, options: SplitOptions = SplitOptions()
) -> list[Finding]:
    """Look for documents, near-duplicate chunks and queries that two splits share.

    Where positives lie in fewer than ``MIN_DOCUMENTS`` documents, two splits may share a document as long as no
    positive of one lies within the gap around a positive of the other. Train and dev may where theirs do, so dev can
    be cut from a train split of few documents. Only positives are compared: that a test chunk is in the corpus is how
    retrieval works.

    Returns:
        The findings when ``allow`` is set (repeat them in the report; ``summary`` says it in a sentence); else an empty
        list.

    Raises:
        ContaminationError: there are findings and ``allow`` is not set; its text lists them.
    """
    findings = [
        finding
        for index, first in enumerate(SPLITS)
        for second in SPLITS[index + 1 :]
        if dataset.qrels.get(first) and dataset.qrels.get(second)
        for finding in _shared(dataset, first, second, options.gap)
    ]
    findings += _shared_duplicates(dataset, options.near_duplicate)
    if findings and not allow:
        listed = "\n".join(f"  - {finding}" for finding in findings[:20])
        more = f"\n  … and {len(findings) - 20} more" if len(findings) > 20 else ""
        raise ContaminationError(f"the splits of '{dataset.path or dataset.name}' are contaminated:\n{listed}{more}")
    return findings


def summary(findings: Sequence[Finding]) -> str:
    """What a board of a contaminated dataset must say."""
    count = Counter(finding.kind for finding in findings)
    kinds = ", ".join(f"{number:,} × {kind}" for kind, number in count.items())
    return f"The splits are contaminated, so this measures memory ({kinds}; the first: {findings[0]})."


def _shared(dataset: RetrievalDataset, first: str, second: str, gap: int) -> list[Finding]:
    if first == "train" and bulk.is_bulk(dataset):
        return [Finding(kind, (first, second), ids, count) for kind, ids, count in bulk.shared(dataset, second)]
    return [*_shared_documents(dataset, first, second, gap), *_shared_queries(dataset, first, second)]


def _positives(dataset: RetrievalDataset, split: str) -> dict[str, set[str]]:
    """Document → its chunks that are positives of the split."""
    found: dict[str, set[str]] = {}
    for chunks in dataset.qrels.get(split, {}).values():
        for chunk in chunks:
            found.setdefault(dataset.corpus[chunk].document_id, set()).add(chunk)
    return found


def _shared_documents(dataset: RetrievalDataset, first: str, second: str, gap: int) -> list[Finding]:
    ours, theirs = _positives(dataset, first), _positives(dataset, second)
    counted = SPLITS if second == "test" else (first, second)
    few = not bulk.is_bulk(dataset) and (
        len(set().union(*(_positives(dataset, split) for split in counted))) < MIN_DOCUMENTS
    )
    found = []
    for document in sorted(ours.keys() & theirs.keys()):
        chunks = sorted(dataset.chunks_of[document], key=lambda key: dataset.corpus[key].start)
        if not few or _too_near(chunks, ours[document], theirs[document], gap):
            found.append(Finding("document", (first, second), (document,), len(theirs[document])))
    return found


def _too_near(chunks: list[str], ours: set[str], theirs: set[str], gap: int) -> bool:
    """True where a positive of one side lies within ``gap`` chunks of one of the other side."""
    last: tuple[int, bool] | None = None
    for position, chunk in enumerate(chunks):
        for side in (side for side, members in ((True, ours), (False, theirs)) if chunk in members):
            if last and last[1] is not side and position - last[0] <= gap:
                return True
            last = (position, side)
    return False


def _shared_queries(dataset: RetrievalDataset, first: str, second: str) -> list[Finding]:
    known = {wording(dataset.queries[query].text): query for query in dataset.qrels[first]}
    return [
        Finding("query", (first, second), (known[text], query), len(dataset.qrels[second][query]))
        for query in dataset.qrels[second]
        if (text := wording(dataset.queries[query].text)) in known
    ]


def _shared_duplicates(dataset: RetrievalDataset, threshold: float) -> list[Finding]:
    splits = SPLITS[1:] if bulk.is_bulk(dataset) else SPLITS
    sides = {chunk: split for split in splits for chunks in dataset.qrels.get(split, {}).values() for chunk in chunks}
    groups = near_duplicates({chunk: dataset.corpus[chunk] for chunk in sides}, threshold)
    groups = [group for group in groups if len({sides[chunk] for chunk in group}) > 1]
    if groups and not bulk.is_bulk(dataset):
        # Which pairs of boilerplate in hundreds of wordings are missed depends on what else is there: what dividing
        # the corpus did not see as alike must not be held against it here.
        groups = _within(groups, near_duplicates(dataset.corpus, threshold))
    found = []
    for group in groups:
        by_split = {sides[chunk]: chunk for chunk in reversed(group)}
        present = [split for split in SPLITS if split in by_split]
        for index, first in enumerate(present):
            for second in present[index + 1 :]:
                found.append(Finding("near-duplicate", (first, second), (by_split[first], by_split[second])))
    return found


# Groups


def _within(groups: list[list[str]], wider: list[list[str]]) -> list[list[str]]:
    """The groups, each cut where its members are not in one of the wider groups."""
    number = {key: place for place, group in enumerate(wider) for key in group}
    parts: dict[tuple[int, int], list[str]] = {}
    for place, group in enumerate(groups):
        for key in group:
            if key in number:
                parts.setdefault((place, number[key]), []).append(key)
    return list(parts.values())


def near_duplicates(chunks: Mapping[str, Chunk], threshold: float) -> list[list[str]]:
    """Groups of ids of chunks with nearly the same text (two and more a group); titles do not count."""
    if threshold >= 1 or len(chunks) < 2:
        return []
    # Dividing, the pool and the check all ask for the same corpus. A digest is kept of it, and not its texts.
    digest = hashlib.blake2b(repr(threshold).encode())
    for key, chunk in chunks.items():
        digest.update(f"{key}\x1f{chunk.text}\x1e".encode("utf-8", "surrogatepass"))
    found = _KNOWN_GROUPS.get(digest.digest())
    if found is None:
        ids = list(chunks)
        groups = near_duplicate_groups((chunk.text for chunk in chunks.values()), threshold)
        found = [[ids[index] for index in group] for group in groups]
        while len(_KNOWN_GROUPS) >= MOST_KNOWN:
            _KNOWN_GROUPS.pop(next(iter(_KNOWN_GROUPS)), None)
        _KNOWN_GROUPS[digest.digest()] = found
    return found


_KNOWN_GROUPS: dict[bytes, list[list[str]]] = {}  # the digest of a corpus → its groups, the latest last


class _Joined:
    """Disjoint sets."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def root(self, key: str) -> str:
        parent = self._parent.setdefault(key, key)
        while parent != self._parent[parent]:
            self._parent[parent] = self._parent[self._parent[parent]]
            parent = self._parent[parent]
        return parent

    def join(self, keys: Iterable[str]) -> None:
        roots = sorted({self.root(key) for key in keys})
        for other in roots[1:]:
            self._parent[other] = roots[0]
