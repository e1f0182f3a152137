from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE

import models
from vectune.chunking import Chunker, ChunkOptions
from vectune.errors import UsageError
from vectune.headings import markdown_headings
from vectune.records import Document


def word_pieces() -> Tokenizer:
    tokenizer: Tokenizer = models.word_tokenizer().backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def byte_pairs() -> Tokenizer:
    """A tokenizer that takes white space as part of words, as GPT's do."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(models.WORDS)] * 3 + ["\n\n  \n"], trainer)
    return tokenizer


TOKENIZERS = {"words": word_pieces(), "bytes": byte_pairs()}
BREAKS = ("\n", "\n\n", "\r\n", "\r\n\r\n", "\r", "\t", "  ", "\x00", "\x1c", "\u2028", "\x85")
MARKS = ("# Head\n", "\n## Sub\n", "- item\n", "| a | b |\n", "```\ncode\n```\n", "...", "…", "[SEP]", "1,234.5 ")
WORDS = ("the car ", "water. ", "Fire! ", "word" * 30, "x" * 200, "\U0001f469\u200d\U0001f467", "e\u0301", "汉字", "ﷺ")
PIECES = st.sampled_from(BREAKS + MARKS + WORDS)
TEXTS = st.lists(PIECES | st.text(max_size=12), max_size=60).map("".join)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("overlap", [0, 8])
@settings(deadline=None, max_examples=40)
@given(text=TEXTS, title=st.text(max_size=200), context=st.sampled_from(["none", "title", "path"]))
def test_offsets_are_exact_nothing_is_lost_and_the_model_reads_all(
    kind: str, overlap: int, text: str, title: str, context: str
) -> None:
    tokenizer = TOKENIZERS[kind]
    chunker = Chunker(tokenizer, 40, ChunkOptions(overlap=overlap, context=context))  # type: ignore[arg-type]
    document = Document(text, "a.md", title, headings=markdown_headings(text))
    chunks = chunker.split(document)
    covered: set[int] = set()
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end]
        assert len(tokenizer.encode(chunk.content).ids) <= 40
        assert any(map(str.isalnum, chunk.text))
        covered.update(range(chunk.start, chunk.end))
    assert all(index in covered for index, character in enumerate(text) if character.isalnum())
    starts = [chunk.start for chunk in chunks]
    assert starts == sorted(starts)
    if not overlap:
        assert all(chunk.end <= after for chunk, after in zip(chunks, starts[1:], strict=False))


def split(text: str, tokens: int = 40, title: str = "", **options: object) -> list[str]:
    chunker = Chunker(TOKENIZERS["words"], tokens, ChunkOptions(**options))  # type: ignore[arg-type]
    return [chunk.text for chunk in chunker.split(Document(text, "a.md", title, headings=markdown_headings(text)))]


def test_chunks_follow_headings() -> None:
    body = "the car and the train and the ship. " * 3
    assert split(f"# car\n\n{body}\n\n# train\n\n{body}") == [f"# car\n\n{body}".strip(), f"# train\n\n{body}".strip()]


def test_a_wrapped_line_is_not_the_end_of_a_sentence() -> None:
    line = "the car and the train and the ship and the road and the"
    text = f"{line}\nriver. the sea is cold.\n" * 3
    assert all(part.endswith(".") for part in split(text, 24))


def test_lines_of_code_and_tables_are_not_joined() -> None:
    lines = ["| the car and the train and the ship and the road | and |"] * 8
    assert all(part.splitlines()[0] in lines for part in split("\n".join(lines), 40))


def test_small_rests_join_their_neighbour() -> None:
    sentence = "the car and the train and the ship and the road and the river and the sea. "
    assert len(split(sentence * 2 + "\n\nwater.", 60)) == 1


def test_headings_and_pages_are_known() -> None:
    text = "# car\n\nthe engine.\n\n## door\n\n" + "the door is open. " * 10
    document = Document(text, "a.md", "car book", pages=(0, text.index("## door")), headings=markdown_headings(text))
    chunks = Chunker(TOKENIZERS["words"], 40, ChunkOptions(context="path")).split(document)
    assert chunks[-1].headings == ("car", "door")
    assert chunks[-1].title == "car book > car > door"
    assert chunks[-1].page == 2
    assert chunks[0].page == 1


def test_a_long_title_is_cut() -> None:
    chunker = Chunker(TOKENIZERS["words"], 40)
    (chunk,) = chunker.split(Document("the car.", "a.md", "light " * 100))
    assert chunk.title == " ".join(["light"] * 9)


def test_overlap_repeats_the_end_of_the_chunk_before() -> None:
    parts = split("the car. the sea. the sun. the moon. the door. the wall. the star. " * 3, 20, overlap=6)
    assert all(after.split(".")[0] in before for before, after in pairwise(parts))


def test_pieces_without_a_letter_or_digit_are_no_chunks() -> None:
    assert split("----\n\n....\n\n" * 10) == []
    assert split("") == []


def test_a_megabyte_in_one_line() -> None:
    text = "The car and the train and the ship and the road. " * 20_000
    parts = split(text, 64)
    assert sum(map(len, parts)) > 0.97 * len(text)
    assert all(part.endswith(".") for part in parts)


@pytest.mark.parametrize("text", ["the car and the sea " * 5_000, "汉字" * 20_000, "a1B2" * 50_000, "x. " * 20_000])
def test_long_lines_without_sentences_or_spaces(text: str) -> None:
    parts = split(text, 64)
    assert sum(map(len, parts)) > 0.9 * len(text)
    assert all(len(part) < 1200 for part in parts)


@pytest.mark.parametrize("options", [ChunkOptions(tokens=10), ChunkOptions(tokens=500), ChunkOptions(overlap=100)])
def test_options_that_leave_no_room_are_usage_errors(options: ChunkOptions) -> None:
    with pytest.raises(UsageError):
        Chunker(TOKENIZERS["words"], 64, options)
