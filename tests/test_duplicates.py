from __future__ import annotations

import random

import numpy as np
import pytest

from vectune.bands import IN_MEMORY, KeyIndex, RecordFile
from vectune.duplicates import (
    LISTED,
    PERMUTATIONS,
    Duplicate,
    Duplicates,
    NearDuplicates,
    drop_duplicate_chunks,
    drop_duplicates,
    near_duplicate_groups,
    rows_of_band,
    shingles,
)
from vectune.records import Chunk, Document


def words(seed: int, count: int = 200) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices("abcdefghij", k=4)) for _ in range(count)]


def changed(text: list[str], *places: int) -> str:
    return " ".join("other" if index in places else word for index, word in enumerate(text))


def jaccard(one: str, other: str) -> float:
    first, second = set(shingles(one.split()).tolist()), set(shingles(other.split()).tolist())
    return len(first & second) / len(first | second)


def test_words_that_differ_in_a_vowel_sign_differ_and_both_forms_of_an_accent_are_one() -> None:
    assert near_duplicate_groups(["काम की", "काम के"], 1) == []
    assert near_duplicate_groups(["le café", "le cafe\u0301"], 1) == [[0, 1]]


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


def versions(seed: int, count: int) -> list[str]:
    """Each a light edit of the one before, so that those far apart are not alike."""
    text, found = words(seed, 150), list[str]()
    for place in range(count):
        found.append(" ".join(text))
        text[7 * place], text[7 * place + 70] = "other", "else"
    return found


def test_versions_of_which_only_neighbours_are_alike_are_one_group_in_any_order() -> None:
    families = [versions(seed, 10) for seed in range(3)]
    assert jaccard(*families[0][1:3]) > 0.9 > 0.8 > jaccard(families[0][0], families[0][4])
    texts = [text for family in families for text in family]
    for seed in range(5):
        order = random.Random(seed).sample(texts, len(texts))
        groups = near_duplicate_groups(order, 0.85)
        assert sorted(sorted(order[place] for place in group) for group in groups) == sorted(map(sorted, families))


def test_of_boilerplate_in_many_wordings_few_are_kept_to_compare_with() -> None:
    index, base = NearDuplicates(0.8, kin=8), words(1)
    for place in range(len(base)):
        index.add(changed(base, place))
    assert len(index._numbers) == 8


def test_scripts_without_spaces_are_compared_by_letters() -> None:
    text = "".join(chr(0x4E00 + random.Random(7).randrange(3000) + index) for index in range(300))
    assert near_duplicate_groups([text, f"{text[:150]}一{text[150:]}", text[::-1]]) == [[0, 1]]


def test_documents_are_kept_once_and_listed() -> None:
    base = words(1)
    first, copy, near = Document(" ".join(base), "a"), Document(" ".join(base), "b"), Document(changed(base, 9), "c")
    dropped = Duplicates()
    assert list(drop_duplicates([first, copy, near, Document("else", "d")], dropped)) == [first, Document("else", "d")]
    assert [(one.source, one.of) for one in dropped.listed] == [("b", "a"), ("c", "a")]
    assert dropped.listed[0].similarity == 1.0
    assert 0.9 <= dropped.listed[1].similarity < 1.0


def test_other_numbers_make_another_chunk() -> None:
    text = "word and " * 3 + " ".join(f"name{chr(97 + index)}" for index in range(26))
    chunks = [Chunk(f"{text} in {year}", start=0, source="a", page=3) for year in ("2020", "2021", "2021")]
    dropped = Duplicates()
    assert list(drop_duplicate_chunks(chunks, dropped)) == chunks[:2]
    assert dropped.listed == [Duplicate("a, page 3, character 0", "a, page 3, character 0", 1.0)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x > 5 is allowed", "x < 5 is allowed"),
        ("Press + to go on", "Press - to go on"),
        ("at -5 degrees", "at 5 degrees"),
        ("10 % of it", "10 of it"),
        ("a → b", "a ← b"),
    ],
)
def test_other_signs_make_another_chunk(one: str, other: str) -> None:
    chunks = [Chunk(text, start=start) for start, text in enumerate((one, other, one, other))]
    assert list(drop_duplicate_chunks(chunks, Duplicates())) == chunks[:2]
    assert near_duplicate_groups([one, other], 1.0) == [[0, 1]], "and yet no such two are on two sides of a split"


def test_other_markup_makes_no_other_document() -> None:
    plain = Document("Title\n\nSome words.\n- one\n- two", "a.txt")
    marked = Document("Title\n=====\n\n> Some **words**.\n+ one\n+ two", "a.md")
    assert list(drop_duplicates([plain, marked], Duplicates())) == [plain]


def test_an_index_of_many_keys_finds_what_was_put_in() -> None:
    index, known = KeyIndex(), dict[int, set[int]]()
    draw = random.Random(5)
    keys = [draw.randrange(2**64) for _ in range(4000)]
    for number in range(40_000):  # some arrays long, some merged
        chosen = [*draw.sample(keys, 2), draw.randrange(2**64)]
        index.insert(np.array(chosen, np.uint64), number)
        for key in chosen:
            known.setdefault(key, set()).add(number)
    for key in (*keys[:200], *list(known)[-200:], 12345):
        assert index.find(np.array([key], np.uint64)) == known.get(key, set())


def test_records_come_back_from_memory_and_from_disk() -> None:
    records = RecordFile()
    kept = [bytes([number % 256]) * (number % 5000) for number in range(8000)]
    assert sum(map(len, kept)) > IN_MEMORY
    for number, record in enumerate(kept):
        assert records.append(record) == number
    assert all(records[number] == kept[number] for number in (0, 1, 7, 4999, 5000, 7999))


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9, 0.95])
def test_pairs_above_the_threshold_are_hardly_ever_missed(threshold: float) -> None:
    rows = rows_of_band(threshold)
    assert 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= 0.99


def test_tables_that_differ_in_figures_alone_do_not_meet() -> None:
    """Or each would be compared with all before it."""
    index = NearDuplicates(0.9, same_numbers=True)
    text = " ".join(words(3))
    assert all(not index.add(f"{text} in {year}") for year in range(300))
    assert max(len(index._bands.find(np.array([key], np.uint64))) for key in index._bands._fresh) < 5


def test_more_duplicates_are_counted_than_listed() -> None:
    dropped = Duplicates()
    assert len(list(drop_duplicate_chunks([Chunk("the same", start=0)] * (LISTED + 50), dropped))) == 1
    assert (len(dropped.listed), dropped.count) == (LISTED, LISTED + 49)
