from __future__ import annotations

import random

from vectune.duplicates import Duplicate, drop_duplicate_chunks, drop_duplicates, near_duplicate_groups, shingles
from vectune.records import Chunk, Document


def words(seed: int, count: int = 200) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices("abcdefghij", k=4)) for _ in range(count)]


def changed(text: list[str], *places: int) -> str:
    return " ".join("other" if index in places else word for index, word in enumerate(text))


def jaccard(one: str, other: str) -> float:
    first, second = set(shingles(one.split()).tolist()), set(shingles(other.split()).tolist())
    return len(first & second) / len(first | second)


def test_groups_are_what_exact_jaccard_says() -> None:
    texts: list[str] = []
    expected = []
    for seed in range(60):
        base = words(seed)
        near = changed(base, 3)
        far = changed(base, *range(0, 200, 4))
        assert jaccard(" ".join(base), near) > 0.9
        assert jaccard(" ".join(base), far) < 0.3
        expected.append([len(texts), len(texts) + 1])
        texts += [" ".join(base), near, far]
    assert near_duplicate_groups(texts, 0.8) == expected


def test_case_punctuation_and_space_make_no_difference() -> None:
    assert near_duplicate_groups(["The car, the sea.", "unrelated words here", "the CAR\n\nthe sea"], 1.0) == [[0, 2]]
    assert near_duplicate_groups([]) == []


def test_a_thousand_copies_are_one_group() -> None:
    assert near_duplicate_groups([" ".join(words(1))] * 1000) == [list(range(1000))]


def test_scripts_without_spaces_are_compared_by_letters() -> None:
    text = "".join(chr(0x4E00 + random.Random(7).randrange(3000) + index) for index in range(300))
    assert near_duplicate_groups([text, f"{text[:150]}一{text[150:]}", text[::-1]]) == [[0, 1]]


def test_documents_are_kept_once_and_listed() -> None:
    base = words(1)
    first, copy, near = Document(" ".join(base), "a"), Document(" ".join(base), "b"), Document(changed(base, 9), "c")
    dropped: list[Duplicate] = []
    assert list(drop_duplicates([first, copy, near, Document("else", "d")], dropped)) == [first, Document("else", "d")]
    assert [(one.source, one.of) for one in dropped] == [("b", "a"), ("c", "a")]
    assert dropped[0].similarity == 1.0
    assert 0.9 <= dropped[1].similarity < 1.0


def test_other_numbers_make_another_chunk() -> None:
    text = "word and " * 3 + " ".join(f"name{chr(97 + index)}" for index in range(26))
    chunks = [Chunk(f"{text} in {year}", start=0, source="a", page=3) for year in ("2020", "2021", "2021")]
    dropped: list[Duplicate] = []
    assert list(drop_duplicate_chunks(chunks, dropped)) == chunks[:2]
    assert dropped == [Duplicate("a, page 3, character 0", "a, page 3, character 0", 1.0)]
