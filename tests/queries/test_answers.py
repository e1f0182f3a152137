"""The store of answers: what is put is there, claims end with their owner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vectune.errors import StorageError
from vectune.queries.answers import Answer, Answers

ANSWER = Answer("1. a query \N{SNOWMAN} \x00", 10, 5, True, 2)


def test_put_and_get(tmp_path: Path) -> None:
    with Answers(tmp_path / "a.sqlite") as answers:
        answers.put("m", [("k", ANSWER), ("l", ANSWER)])
    with Answers(tmp_path / "a.sqlite") as answers:
        assert answers.get(["k", "nothing"]) == {"k": ANSWER}
        answers.forget(["k"])
        assert list(answers.get(["k", "l"])) == ["l"]


def test_half_a_surrogate_pair_takes_no_other_answer_with_it(tmp_path: Path) -> None:
    with Answers(tmp_path / "a.sqlite") as answers:
        answers.put("m", [("k", ANSWER), ("broken", Answer("how does \ud83d work?", 1, 1))])
        assert answers.get(["k"]) == {"k": ANSWER}
        assert answers.get(["broken"])["broken"].text == "how does \ufffd work?"


def test_more_keys_than_sqlite_takes_at_once(tmp_path: Path) -> None:
    keys = [str(number) for number in range(1801)]
    with Answers(tmp_path / "a.sqlite") as answers:
        answers.put("m", [(key, ANSWER) for key in keys])
        assert len(answers.get(keys)) == 1801
        assert answers.claim(keys) == set()


def test_claims(tmp_path: Path) -> None:
    with Answers(tmp_path / "a.sqlite") as first, Answers(tmp_path / "a.sqlite") as second:
        assert first.claim(["a", "b", "c"]) == {"a", "b", "c"}
        assert second.claim(["b", "c", "d"]) == {"d"}
        first.put("m", [("b", ANSWER)])
        first.release(["c"])
        assert second.claim(["a", "b", "c"]) == {"c"}
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".owner")] == []


def test_claims_of_a_killed_process_are_free(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    program = (
        "import os, sys, signal; from pathlib import Path; from vectune.queries.answers import Answers\n"
        "answers = Answers(Path(sys.argv[1])); answers.claim(['a', 'b']); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    with Answers(path) as answers:
        assert answers.claim(["a", "b"]) == {"a", "b"}


def test_tokens_of_a_query(tmp_path: Path) -> None:
    with Answers(tmp_path / "a.sqlite") as answers:
        answers.put("m", [(str(number), Answer("x", 1, 30, queries=3)) for number in range(19)])
        assert answers.tokens_of_query("m") is None
        answers.put("m", [("last", Answer("x", 1, 30, queries=3))])
        assert answers.tokens_of_query("m") == 10
        assert answers.tokens_of_query("other") is None


def test_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(StorageError, match=r"a\.sqlite: the store of answers failed"):
        Answers(path)
