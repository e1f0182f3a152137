from __future__ import annotations

import numpy as np

from vectune.lexical import BM25
from vectune.negatives import mine

TEXTS = ["red apple pie", "red apple tart", "green pear", "blue whale", "red brick wall"]


def unit(rows: list[list[float]]) -> np.ndarray:
    table = np.array(rows, dtype=np.float32)
    found: np.ndarray = table / np.linalg.norm(table, axis=1, keepdims=True)
    return found


POOL = unit([[1, 0, 0], [0.98, 0.2, 0], [0.3, 1, 0], [0, 0, 1], [0.6, 0.8, 0]])
QUERY = unit([[1, 0, 0]])


def mined(
    margin: float = 0.95, excluded: list[int] | None = None, depth: int = 4, texts: list[str] = TEXTS
) -> list[int]:
    found = mine(QUERY, ["red apple pie"], POOL, BM25(texts), [[0]], [excluded or []], depth, margin=margin)
    return found[0].tolist()  # type: ignore[no-any-return]


def test_hardest_first_and_never_the_positive() -> None:
    assert mined() == [1, 4, 2, 3]


def test_what_scores_as_the_positive_does_is_left_out() -> None:
    twin = ["red apple pie", "red apple pie", *TEXTS[2:]]
    assert mined(texts=twin) == [4, 2, 3, -1]
    assert mined(texts=twin, margin=2.0)[0] == 1


def test_a_lower_margin_leaves_more_out() -> None:
    assert 1 not in mined(margin=0.5)


def test_excluded_places_are_never_taken() -> None:
    assert mined(excluded=[1, 4]) == [2, 3, -1, -1]


def test_a_positive_that_no_model_finds_sets_no_limit() -> None:
    found = mine(QUERY, ["red apple pie"], POOL, BM25(TEXTS), [[3]], [[]], 3)
    assert found[0].tolist() == [0, 1, 4]


def test_more_queries_than_a_block() -> None:
    queries = np.repeat(QUERY, 300, axis=0)
    found = mine(queries, ["red apple pie"] * 300, POOL, BM25(TEXTS), [[0]] * 300, [[]] * 300, 2)
    assert (found == [1, 4]).all()
