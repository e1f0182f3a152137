"""Exact and near-duplicate texts, found in one pass by MinHash and locality-sensitive hashing (datasketch).

Two texts are compared as sets of runs of three words; their similarity is the Jaccard index of the sets, estimated by
MinHash (Broder, On the resemblance and containment of documents, 1997). Nothing is compared with everything: banding
finds candidates, and only the first texts of a group go into the index, so a thousand copies cost a thousand look-ups.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vectune.bands import KeyIndex, RecordFile
from vectune.characters import words_in
from vectune.errors import check_bounds
from vectune.records import Chunk, Document

if TYPE_CHECKING:
    from numpy.typing import NDArray

LISTED = 1000  # duplicates listed by name
KIN = 8  # near texts in the index are enough: boilerplate in a million wordings must not be a million squared
RUN = 3  # words in a shingle; letters where a script has no spaces
PERMUTATIONS = 128  # standard error of a similarity of 0.8: 0.035
BLOCK = 16_384  # shingles hashed at a time: 8 MiB
_NUMBER = re.compile(r"\d+")
# Signs that say something; not where they may be mark-up: a quote or item at the start of a line, a line of === or +--.
_SIGN = re.compile(r"(?<!\S)[-−](?=\d)|(?m:(?<!^))(?<![<>=+~-])[<>=+](?![<>=+~-])|[%‰°$€£¥±×÷¬√∞≈≠≤≥←↑→↓✓✔✗✘]")
_PLACES = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)

Record = TypeVar("Record", Document, Chunk)


@dataclass(frozen=True)
class DuplicateOptions:
    """What is left out because it was there already.

    Attributes:
        documents: Jaccard index from which a document repeats another one; 1 leaves out equal words and signs alone,
            above 1 none.
        chunks: the same for chunks.
    """

    documents: float = 0.9
    chunks: float = 0.9

    def __post_init__(self) -> None:
        check_bounds("duplicates", self, {}, ("documents", "chunks"))


@dataclass(frozen=True)
class Duplicate:
    """A document or chunk that was left out because another one says the same.

    Attributes:
        source: what was left out: a document's path; a chunk's path, page and offset.
        of: what was kept instead.
        similarity: 1.0 for equal words, else the estimated Jaccard index.
    """

    source: str
    of: str
    similarity: float


@dataclass
class Duplicates:
    """What was left out: all are counted, the first ones listed.

    Attributes:
        listed: at most ``LISTED``.
        count: how many there were.
    """

    listed: list[Duplicate] = field(default_factory=list)
    count: int = 0

    def add(self, duplicate: Duplicate) -> None:
        self.count += 1
        if len(self.listed) < LISTED:
            self.listed.append(duplicate)


class NearDuplicates:
    """An index of texts that grows while it is asked; about 150 bytes of memory for a text, the rest is on disk.

    Args:
        threshold: Jaccard index from which two texts are near-duplicates.
        same_numbers: texts with different numbers are never duplicates: last year's table is not this year's. Nor are
            texts of the same words with other signs, such as < for >.
        kin: a text that is near so many texts of the index already is not put into it.
    """

    def __init__(self, threshold: float = 0.8, same_numbers: bool = False, kin: int = 1) -> None:
        from datasketch import MinHash

        self.threshold, self.same_numbers, self.kin = threshold, same_numbers, kin
        self._empty = MinHash(num_perm=PERMUTATIONS, hashfunc=int)
        rows = rows_of_band(threshold)
        draw = np.random.default_rng(0)
        self._factors = draw.integers(1, 2**64, (PERMUTATIONS // rows, rows), np.uint64, endpoint=False) | np.uint64(1)
        self._bands, self._exact, self._worded = KeyIndex(), KeyIndex(), KeyIndex()
        self._signatures = RecordFile()
        self._numbers = array("L")  # of the texts with a signature
        self._count = 0

    def add(self, text: str) -> list[tuple[int, float]]:
        """Number this text (0, 1, …) and say which earlier texts it repeats: their numbers and similarity, best first.

        A text that repeats another one word for word is not indexed itself, nor is one near ``kin`` texts of the index.
        """
        number, self._count = self._count, self._count + 1
        words = words_in(text.casefold())
        worded = _hashes(words)
        key = worded ^ _hashes(_SIGN.findall(text)) if self.same_numbers else worded
        same = self._exact.find(key)
        if same:
            return [(min(same), 1.0)]
        near: list[tuple[int, float]] = []
        others = self.same_numbers and self._worded.find(worded)
        if words and self.threshold < 1 and not others:
            near = self._near_and_indexed(words, _NUMBER.findall(text) if self.same_numbers else [], number)
        self._exact.insert(key, near[0][0] if near else number)
        if self.same_numbers and not others:
            self._worded.insert(worded, number)
        return near

    def _near_and_indexed(self, words: list[str], figures: list[str], number: int) -> list[tuple[int, float]]:
        """Earlier texts that are near; where they are few, the text is put into the index."""
        signature = self._signature(words)
        rows = signature[: self._factors.size].reshape(self._factors.shape)
        # Figures are part of the keys: a thousand tables that differ in nothing else must not meet in one band.
        keys = (rows * self._factors).sum(axis=1, dtype=np.uint64) ^ _hashes(sorted(figures))
        found = [(self._numbers[place], self._similarity(place, signature)) for place in self._bands.find(keys)]
        near = [(other, similarity) for other, similarity in found if similarity >= self.threshold]
        if len(near) < self.kin:
            self._bands.insert(keys, self._signatures.append(signature.astype(np.uint32).tobytes()))
            self._numbers.append(number)
        return sorted(near, key=lambda pair: (-pair[1], pair[0]))

    def _signature(self, words: list[str]) -> NDArray[np.uint64]:
        signature = self._empty.copy()
        hashes = shingles(words)
        for start in range(0, len(hashes), BLOCK):
            signature.update_batch(hashes[start : start + BLOCK].tolist())
        return np.asarray(signature.hashvalues, dtype=np.uint64)  # none above 2³²

    def _similarity(self, place: int, signature: NDArray[np.uint64]) -> float:
        return float(np.mean(np.frombuffer(self._signatures[place], np.uint32) == signature))


def rows_of_band(threshold: float) -> int:
    """How many values of a signature make a band, so that 99 of 100 pairs at the threshold share one.

    More values keep more pairs apart that are not alike; candidates are checked against the threshold anyway, but a
    pair that shares no band is missed.
    """
    threshold = min(threshold, 0.95)
    likely = (rows for rows in range(1, 17) if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= 0.99)
    return max(likely, default=1)


def shingles(words: list[str]) -> NDArray[np.uint32]:
    """Hashes of all runs of three words, each once; of three letters where words are as long as clauses (Chinese)."""
    if sum(map(len, words)) > 12 * len(words):
        words = list("".join(words))
    hashes = np.fromiter(map(_word_hash, words), np.uint64, len(words))
    run = min(RUN, len(hashes))
    count = len(hashes) - run + 1
    mixed = np.zeros(count, np.uint64)
    for place in range(run):
        mixed = (mixed ^ hashes[place : place + count]) * _PLACES[place]
    return np.unique((mixed >> np.uint64(32)).astype(np.uint32))


@lru_cache(maxsize=200_000)
def _word_hash(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))  # Python's own hash changes from run to run


def _hashes(words: list[str]) -> NDArray[np.uint64]:
    """A hash of a list of words, of shape (1,); two of a million lists share one with a chance of 3 in 10⁸."""
    joined = " ".join(words).encode("utf-8", "surrogatepass")
    return np.frombuffer(hashlib.blake2b(joined, digest_size=8).digest(), np.uint64)


def near_duplicate_groups(texts: Iterable[str], threshold: float = 0.8) -> list[list[int]]:
    """Groups of texts that are near-duplicates of each other, as sorted lists of at least two indices.

    A text joins all that it is near: of three versions of which only neighbours are alike, all are one group, in
    whatever order they come. Only of boilerplate in hundreds of wordings some pairs are missed.

    Args:
        texts: any number of texts; read once.
        threshold: Jaccard index of their runs of three words, from 0 to 1; 1 finds exact repeats alone.
    """
    index = NearDuplicates(threshold, kin=KIN)
    parent = array("L")

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for number, text in enumerate(texts):
        parent.append(number)
        for other, _ in index.add(text):
            parent[root(number)] = parent[root(other)] = min(root(number), root(other))
    roots = np.fromiter(map(root, range(len(parent))), np.int64, len(parent))
    shared, counts = np.unique(roots, return_counts=True)
    groups: dict[int, list[int]] = {number: [] for number in shared[counts > 1].tolist()}
    for number in np.flatnonzero(np.isin(roots, shared[counts > 1])).tolist():
        groups[int(roots[number])].append(number)
    return list(groups.values())


def drop_duplicates(
    documents: Iterable[Document], duplicates: Duplicates, threshold: float = 0.9
) -> Iterator[Document]:
    """Documents as they come, without those that repeat an earlier one; what is dropped goes into ``duplicates``.

    In memory are about 150 bytes a document. A document with other numbers in it is never a duplicate.
    """
    return _dropping(documents, duplicates, threshold)


def drop_duplicate_chunks(chunks: Iterable[Chunk], duplicates: Duplicates, threshold: float = 0.9) -> Iterator[Chunk]:
    """Chunks as they come, without those whose text repeats an earlier one's; see ``drop_duplicates``."""
    return _dropping(chunks, duplicates, threshold)


def _dropping(records: Iterable[Record], duplicates: Duplicates, threshold: float) -> Iterator[Record]:
    if threshold > 1:
        yield from records
        return
    index = NearDuplicates(threshold, same_numbers=True)
    names = RecordFile()
    for record in records:
        repeats = index.add(record.text)
        name = _name(record)
        names.append(name.encode("utf-8", "surrogatepass"))
        if repeats:
            other, similarity = repeats[0]
            duplicates.add(Duplicate(name, names[other].decode("utf-8", "surrogatepass"), round(similarity, 3)))
        else:
            yield record


def _name(record: Document | Chunk) -> str:
    if isinstance(record, Document):
        return record.source
    page = f", page {record.page}" if record.page else ""
    return f"{record.source or record.document_id}{page}, character {record.start}"
