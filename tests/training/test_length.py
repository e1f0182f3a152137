"""How far texts are read."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from tiny_dataset import THINGS, small_dataset, with_chunk
from vectune.embedders.loading import load_model
from vectune.evaluation import evaluate
from vectune.splits import with_dev
from vectune.training.encoder import Encoder
from vectune.training.finetune import finetune
from vectune.training.length import Reach, further
from vectune.training.options import TuneOptions

SHORT, LONG = "the bridge over the river", "the law of the garden " * 40


@pytest.fixture
def reads_8(tiny_bert: Path, tmp_path: Path) -> Path:
    """The tiny model, set to read 8 tokens: less than half of most chunks."""
    model = load_model(str(tiny_bert))
    model.max_seq_length = 8
    model.save(str(tmp_path / "reads-8"))
    return tmp_path / "reads-8"


def test_much_text_beyond_the_setting_is_read_twice_as_far(tiny_bert: Path) -> None:
    encoder = Encoder(load_model(str(tiny_bert)))
    words = encoder.full_lengths([SHORT, LONG])
    assert further(encoder, [SHORT, LONG]) == Reach(64, 128, (words[1] - 64) / words.sum())
    assert further(encoder, [SHORT] * 3) is None
    assert further(encoder, [*[SHORT] * 200, LONG]) is None  # long, but little of the text


@pytest.mark.parametrize(("own", "now"), [(20, 40), (100, 128), (128, None)])
def test_no_further_than_the_positions_allow(tiny_bert: Path, own: int, now: int | None) -> None:
    encoder = Encoder(load_model(str(tiny_bert)))
    encoder.model.max_seq_length = own
    found = further(encoder, [SHORT, LONG])
    assert (found.now if found else None) == now


def test_a_model_without_a_limit_reads_all_anyway(tiny_static: Path) -> None:
    assert further(Encoder(load_model(str(tiny_static))), [LONG]) is None


def test_the_encoder_reads_less_for_a_while(tiny_bert: Path) -> None:
    encoder = Encoder(load_model(str(tiny_bert)))
    with encoder.reading(10):
        assert encoder.tokenize([LONG], "document").lengths.tolist() == [10]
    assert encoder.tokenize([LONG], "document").lengths.tolist() == [64]


def test_what_is_tuned_reads_on_and_says_so(reads_8: Path, tmp_path: Path) -> None:
    options = TuneOptions(model=str(reads_8), precision="fp32", epochs=3, rate=1e-3, batch=16)
    result = finetune(small_dataset(), tmp_path / "out", options)
    assert result.chosen["kept"] != "base" and result.chosen["max_length"] == 16
    assert SentenceTransformer(str(result.path)).max_seq_length == 16
    told = [note for note in result.notes if "reads 16" in note]
    assert len(told) == 1 and f"{result.dev_before:.3f} reading 8" in told[0]
    asked = finetune(small_dataset(), tmp_path / "asked", TuneOptions(**{**vars(options), "max_length": 8}))
    assert SentenceTransformer(str(asked.path)).max_seq_length == 8


def test_a_length_that_was_asked_for_must_beat_the_model_as_it_is_set(reads_8: Path, tmp_path: Path) -> None:
    options = TuneOptions(model=str(reads_8), precision="fp32", epochs=1, rate=1e-12, batch=16, max_length=4)
    result = finetune(small_dataset(), tmp_path / "out", options)
    assert result.chosen["kept"] == "base" and result.dev_before == result.dev_after
    assert "as it is set: tuned to read 4, as asked for, it was no better" in result.notes[0]
    assert f"{result.dev_before:.3f} reading 8" in result.notes[0] and "0.000 reading 4" in result.notes[0]
    assert SentenceTransformer(str(result.path)).max_seq_length == 8


def test_a_base_that_is_kept_reads_what_it_did(tiny_bert: Path, tmp_path: Path) -> None:
    model = load_model(str(tiny_bert))
    model.max_seq_length = 16
    model.save(str(tmp_path / "reads-16"))
    data, draw = small_dataset(), random.Random(0)
    for key, chunk in data.corpus.items():  # what stands further on is about other things
        data = with_chunk(data, key, text=f"{chunk.text} {' '.join(draw.choices(THINGS, k=16))}")
    options = TuneOptions(model=str(tmp_path / "reads-16"), precision="fp32", epochs=1, rate=1e-12, batch=16)
    result = finetune(data, tmp_path / "out", options)
    assert result.chosen["kept"] == "base" and result.dev_after == result.dev_before
    assert re.match(r"The model reads 16 tokens, as it is set, and \d+% of the text lies beyond\.", result.notes[0])
    assert f"{result.dev_before:.3f} reading 16" in result.notes[0]
    assert SentenceTransformer(str(result.path)).max_seq_length == 16


def test_shorter_vectors_of_a_base_that_is_kept_are_told_as_it_reads(tiny_bert: Path, tmp_path: Path) -> None:
    model = load_model(str(tiny_bert))
    model.max_seq_length = 16
    model.save(str(tmp_path / "reads-16"))
    data, draw = small_dataset(), random.Random(0)
    for key, chunk in data.corpus.items():
        data = with_chunk(data, key, text=f"{chunk.text} {' '.join(draw.choices(THINGS, k=16))}")
    options = TuneOptions(
        model=str(tmp_path / "reads-16"), precision="fp32", epochs=1, rate=1e-12, batch=16, dimensions=(16,)
    )
    result = finetune(data, tmp_path / "out", options)
    assert any("the base model, turned to its principal axes" in note for note in result.notes)
    told = result.chosen["dev_by_dimension"][16]
    board = evaluate(with_dev(data), [f"{result.path}@16"], "dev").rows[0]
    assert told == pytest.approx(board.measures["nDCG@10"], abs=1e-3)


@pytest.mark.parametrize("kind", ["tiny_static", "tiny_decoder"])
def test_a_base_of_any_kind_can_be_kept(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = str(request.getfixturevalue(kind))
    options = TuneOptions(model=model, precision="fp32", epochs=1, rate=1e-12, batch=16)
    assert finetune(small_dataset(), tmp_path / "out", options).chosen["kept"] == "base"
    assert SentenceTransformer(str(tmp_path / "out")).max_seq_length == SentenceTransformer(model).max_seq_length
