"""Exact and near-duplicate texts, found in one pass by MinHash and locality-sensitive hashing (datasketch).

Two texts are compared as sets of runs of three words; their similarity is the Jaccard index of the sets, estimated by
MinHash (Broder, On the resemblance and containment of documents, 1997). Nothing is compared with everything: banding
finds candidates, and only the first text of a group goes into the index, so a thousand copies cost a thousand look-ups.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vectune.records import Chunk, Document

if TYPE_CHECKING:
    from datasketch import MinHash
    from numpy.typing import NDArray

RUN = 3  # words in a shingle; letters where a script has no spaces
PERMUTATIONS = 128  # standard error of a similarity of 0.8: 0.035
BLOCK = 16_384  # shingles hashed at a time: 8 MiB
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+")
_PLACES = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)

Record = TypeVar("Record", Document, Chunk)


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


class NearDuplicates:
    """An index of texts that grows while it is asked.

    Args:
        threshold: Jaccard index from which two texts are near-duplicates.
        same_numbers: texts with different numbers are never duplicates: last year's table is not this year's.
    """

    def __init__(self, threshold: float = 0.8, same_numbers: bool = False) -> None:
        from datasketch import MinHash, MinHashLSH

        self.threshold, self.same_numbers = threshold, same_numbers
        self._empty = MinHash(num_perm=PERMUTATIONS, hashfunc=int)
        # Missing a pair is worse than looking at one in vain: candidates are checked against the threshold.
        self._index = MinHashLSH(threshold=min(threshold, 0.95), num_perm=PERMUTATIONS, weights=(0.1, 0.9))
        self._signatures: dict[int, NDArray[np.unsignedinteger]] = {}
        self._numbers: dict[int, bytes] = {}
        self._exact: dict[bytes, int] = {}
        self._count = 0

    def add(self, text: str) -> list[tuple[int, float]]:
        """Number this text (0, 1, …) and say which earlier texts it repeats: their numbers and similarity, best first.

        A text that repeats another one is not indexed itself.
        """
        number, self._count = self._count, self._count + 1
        words = _WORD.findall(text.casefold())
        key = _digest(words)
        if key in self._exact:
            return [(self._exact[key], 1.0)]
        self._exact[key] = number
        if not words or self.threshold >= 1:
            return []
        numbers = _digest(sorted(_NUMBER.findall(text))) if self.same_numbers else b""
        signature = self._signature(words)
        found = [(other, self._similarity(other, signature)) for other in self._index.query(signature)]
        near = [(o, s) for o, s in found if s >= self.threshold and self._numbers[o] == numbers]
        if near:
            self._exact[key] = max(near, key=lambda pair: (pair[1], -pair[0]))[0]
        else:
            self._index.insert(number, signature, check_duplication=False)
            self._signatures[number] = signature.hashvalues
            self._numbers[number] = numbers
        return sorted(near, key=lambda pair: (-pair[1], pair[0]))

    def _signature(self, words: list[str]) -> MinHash:
        signature = self._empty.copy()
        hashes = shingles(words)
        for start in range(0, len(hashes), BLOCK):
            signature.update_batch(hashes[start : start + BLOCK].tolist())
        return signature

    def _similarity(self, other: int, signature: MinHash) -> float:
        return float(np.mean(self._signatures[other] == signature.hashvalues))


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


def _digest(words: list[str]) -> bytes:
    return hashlib.blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def near_duplicate_groups(texts: Iterable[str], threshold: float = 0.8) -> list[list[int]]:
    """Groups of texts that are near-duplicates of each other, as sorted lists of at least two indices.

    Args:
        texts: any number of texts; read once.
        threshold: Jaccard index of their runs of three words, from 0 to 1; 1 finds exact repeats alone.
    """
    index = NearDuplicates(threshold)
    parent: list[int] = []

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for number, text in enumerate(texts):
        parent.append(number)
        for other, _ in index.add(text):
            parent[root(number)] = parent[root(other)] = min(root(number), root(other))
    groups: dict[int, list[int]] = {}
    for number in range(len(parent)):
        groups.setdefault(root(number), []).append(number)
    return [group for group in groups.values() if len(group) > 1]


def drop_duplicates(
    documents: Iterable[Document], duplicates: list[Duplicate], threshold: float = 0.9
) -> Iterator[Document]:
    """Documents as they come, without those that repeat an earlier one; what is dropped is appended to ``duplicates``.

    In memory are signatures, about 4 KB a document. A document with other numbers in it is never a duplicate.
    """
    return _dropping(documents, duplicates, threshold)


def drop_duplicate_chunks(
    chunks: Iterable[Chunk], duplicates: list[Duplicate], threshold: float = 0.9
) -> Iterator[Chunk]:
    """Chunks as they come, without those whose text repeats an earlier one's; see ``drop_duplicates``."""
    return _dropping(chunks, duplicates, threshold)


def _dropping(records: Iterable[Record], duplicates: list[Duplicate], threshold: float) -> Iterator[Record]:
    index = NearDuplicates(threshold, same_numbers=True)
    names: list[str] = []
    for record in records:
        name = _name(record)
        repeats = index.add(record.text)
        names.append(name)
        if repeats:
            duplicates.append(Duplicate(name, names[repeats[0][0]], round(repeats[0][1], 3)))
        else:
            yield record


def _name(record: Document | Chunk) -> str:
    if isinstance(record, Document):
        return record.source
    page = f", page {record.page}" if record.page else ""
    return f"{record.source or record.document_id}{page}, character {record.start}"
