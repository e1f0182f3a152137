from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import models
from tiny_dataset import small_dataset, stored_dataset
from tuning import close, events, options, weights
from vectune.dataset import RetrievalDataset
from vectune.embedders.factory import open_embedder
from vectune.embedders.local import LocalEmbedder
from vectune.errors import (
    DatasetError,
    InputError,
    MissingExtraError,
    ModelError,
    OutputError,
    TrainingError,
    UsageError,
)
from vectune.evaluation import evaluate
from vectune.progress import Progress
from vectune.splits import with_dev
from vectune.training import opening
from vectune.training.encoder import Encoder
from vectune.training.finetune import Tuning, explain, finetune
from vectune.training.loop import Loop, State
from vectune.training.options import TuneOptions
from vectune.training.result import TuneResult


def test_the_result_opens_and_is_no_worse_than_the_base_on_dev(tiny_bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    progress = Progress(tmp_path / "events.jsonl", terminal=False)
    result = finetune(small_dataset(), tmp_path / "out", options(tiny_bert), progress)
    assert result.dev_after > result.dev_before
    assert events(progress, "train")[-1]["loss"] < events(progress, "train")[0]["loss"]
    assert [line["step"] for line in events(progress, "dev")] == [0, *(step for step, _ in result.chosen["curve"])]
    tuned, base = SentenceTransformer(str(result.path)), SentenceTransformer(str(tiny_bert))
    assert tuned.prompts == base.prompts
    assert tuned.max_seq_length == base.max_seq_length
    dropouts = [[m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] for model in (tuned, base)]
    assert dropouts[0] == dropouts[1]
    marker = json.loads((tmp_path / "out" / "vectune.json").read_text())
    assert (marker["kind"], marker["base"]) == ("full", str(tiny_bert))
    assert marker["base_fingerprint"] == result.base_fingerprint
    assert not (tmp_path / ".out.work").exists()


def test_data_on_disk_teach_as_those_in_memory_and_say_what_is_left_out(tiny_bert: Path, tmp_path: Path) -> None:
    result = finetune(stored_dataset(), tmp_path / "out", options(tiny_bert))
    assert result.dev_after > result.dev_before
    assert any("near-duplicates not" in note and "No hard negatives" in note for note in result.notes)
    for given in ({"anchor": 0.1}, {"negatives": 1}, {"refresh": 1}):
        with pytest.raises(UsageError, match="stay on disk"):
            finetune(stored_dataset(), tmp_path / "other", options(tiny_bert, **given))


def test_cached_gradients_are_those_of_the_whole_batch(tiny_bert: Path, tmp_path: Path) -> None:
    whole = finetune(small_dataset(), tmp_path / "whole", options(tiny_bert, epochs=1))
    pieces = finetune(small_dataset(), tmp_path / "pieces", options(tiny_bert, epochs=1, memory_gib=0.0))
    assert close(whole.path, pieces.path, atol=1e-4)
    assert not close(whole.path, tiny_bert, atol=1e-3)


def test_memory_that_runs_out_makes_pieces_smaller(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Encoder.piece

    def piece(self: Encoder, texts: Any, rows: Any) -> torch.Tensor:
        if torch.is_grad_enabled() and len(rows) > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")
        return real(self, texts, rows)

    monkeypatch.setattr(Encoder, "piece", piece)
    result = finetune(small_dataset(), tmp_path / "out", options(tiny_bert, epochs=1))
    assert result.chosen["steps"] == result.chosen["planned_steps"]
    assert "memory ran out: batches now go through in pieces" in capsys.readouterr().err


def test_a_second_start_may_be_given_less_memory(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has killed the first one for what it took."""

    class Stopped(Progress):
        def event(self, kind: str, **fields: Any) -> None:
            if kind == "train" and fields["step"] == 3:
                raise KeyboardInterrupt

    wanted = options(tiny_bert, checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        finetune(small_dataset(), tmp_path / "out", wanted, Stopped(terminal=False))
    rooms: list[float] = []
    real = Loop._backward

    def backward(self: Loop, batch: Any) -> float:
        rooms.append(self.room)
        return real(self, batch)

    monkeypatch.setattr(Loop, "_backward", backward)
    less = options(tiny_bert, checkpoint_seconds=0.0, memory_gib=0.0)
    progress = Progress(tmp_path / "events.jsonl", terminal=False)
    finetune(small_dataset(), tmp_path / "out", less, progress)
    assert events(progress, "train")[0]["step"] == 3 and set(rooms) == {0.0}


def test_memory_that_runs_out_in_a_look_at_dev_makes_pieces_smaller(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = Loop.dev_vectors, list[int]()

    def dev_vectors(self: Loop) -> Any:
        if self.encoder.piece_tokens > 512:
            failed.append(self.encoder.piece_tokens)
            raise MemoryError
        return real(self)

    monkeypatch.setattr(Loop, "dev_vectors", dev_vectors)
    result = finetune(small_dataset(), tmp_path / "out", options(tiny_bert, epochs=1))
    assert failed[-1] == 1024 and result.chosen["steps"] == result.chosen["planned_steps"]


def test_negatives_are_mined_anew_with_the_model_as_it_is(tiny_bert: Path, tmp_path: Path) -> None:
    progress = Progress(tmp_path / "events.jsonl", terminal=False)
    once = finetune(small_dataset(), tmp_path / "once", options(tiny_bert))
    again = finetune(small_dataset(), tmp_path / "again", options(tiny_bert, refresh=2), progress)
    assert [line["task"] for line in events(progress, "start")].count("mine negatives") == 3
    assert not close(once.path, again.path, atol=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, about transformers
def test_lora_is_saved_as_adapter_and_merged(tiny_bert: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer

    result = finetune(small_dataset(), tmp_path / "out", options(tiny_bert, method="lora", rate=1e-2, lora_rank=4))
    assert result.dev_after > result.dev_before
    assert weights(result.path).keys() == weights(tiny_bert).keys()
    merged, base = SentenceTransformer(str(result.path)), SentenceTransformer(str(tiny_bert))
    transformer: Any = base[0].auto_model
    base[0].auto_model = PeftModel.from_pretrained(transformer, str(result.path / "adapter"))
    texts = ["how do I heat a lamp", "you can open the garden"]
    assert np.allclose(merged.encode(texts), base.encode(texts), atol=1e-5)


def test_low_rank_additions_begin_alike_whatever_has_been_drawn(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draws(device: str) -> bool:
        torch.randn(3)
        return False

    wanted = options(tiny_bert, method="lora", epochs=1, precision="auto")
    found = []
    for name, measure in (("one", lambda device: False), ("two", draws)):
        monkeypatch.setattr(opening, "fast_bf16", measure)
        found.append(weights(finetune(small_dataset(), tmp_path / name, wanted).path))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("make", ["tiny_decoder", "tiny_static"])
def test_other_makes_of_model(make: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = request.getfixturevalue(make)
    result = finetune(small_dataset(), tmp_path / "out", options(model, rate=5e-3))
    assert result.dev_after >= result.dev_before
    assert result.chosen["kept"] != "base"
    SentenceTransformer(str(result.path)).encode_query("how do I heat a lamp")


def test_padded_and_packed_vectors_agree_with_the_model_itself(tiny_bert: Path, tiny_decoder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["you can open the lamp", "sell", "how do I heat the garden with my hand and a long letter", ""]
    for folder in (tiny_bert, tiny_decoder):
        model = SentenceTransformer(str(folder)).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        encoder = Encoder(model, piece_tokens=32)
        for role, encode in (("query", model.encode_query), ("document", model.encode_document)):
            found = encoder.embed(encoder.tokenize(texts, role))  # type: ignore[arg-type]
            assert np.allclose(found, encode(texts, normalize_embeddings=True), atol=1e-5)


def test_pieces_of_a_gpu_follow_its_memory(tiny_bert: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = Encoder(SentenceTransformer(str(tiny_bert), device="cpu"))
    encoder.fit_pieces(2**40)
    assert encoder.piece_tokens == 2048  # a processor's fit its cache
    encoder.device = torch.device("meta")
    for room, tokens in ((2**40, 65_536), (1, 512), (4096 * encoder.token_bytes, 4096)):
        encoder.fit_pieces(room)
        assert encoder.piece_tokens == tokens


def test_a_loss_that_is_no_number_stops_and_keeps_the_best_state(tiny_bert: Path, tmp_path: Path) -> None:
    asked = 0

    def teacher(queries: Sequence[str], chunks: Sequence[str]) -> NDArray[np.float32]:
        nonlocal asked
        asked += 1
        value = np.nan if asked > 6 else 0.0
        return np.full((len(queries), len(chunks)), value, np.float32)

    given = options(tiny_bert, epochs=8, teacher_weight=0.01)
    result = finetune(small_dataset(), tmp_path / "out", given, teacher=teacher)
    assert result.dev_after > result.dev_before
    assert any("the loss became nan at step 7; try a lower rate" in note for note in result.notes)
    assert all(torch.isfinite(value).all() for value in weights(result.path).values())


def test_a_loss_that_is_no_number_right_after_a_look_is_told_as_that(tiny_bert: Path, tmp_path: Path) -> None:
    asked: list[int] = []

    def teacher(queries: Sequence[str], chunks: Sequence[str]) -> NDArray[np.float32]:
        asked.append(len(asked))
        return np.full((len(queries), len(chunks)), np.nan if len(asked) > 4 else 0.0, np.float32)

    given = options(tiny_bert, epochs=8, teacher_weight=0.01, checks=1000, patience=1000)
    result = finetune(small_dataset(), tmp_path / "out", given, teacher=teacher)
    steps = [step for step, _ in result.chosen["curve"]]
    assert steps[-1] == 4 == result.chosen["steps"] and len(set(steps)) == len(steps)
    assert any("the loss became nan" in note for note in result.notes)


def test_a_time_limit_shortens_the_plan(tiny_bert: Path, tmp_path: Path) -> None:
    result = finetune(small_dataset(), tmp_path / "out", options(tiny_bert, epochs=2000, max_minutes=0.05))
    assert result.chosen["planned_steps"] < 2000
    assert any("time limit" in note for note in result.notes)


def test_five_pairs(tiny_bert: Path, tmp_path: Path) -> None:
    dataset = small_dataset()
    dataset.qrels = {"train": dict(list(dataset.qrels["train"].items())[::8][:5])}
    result = finetune(dataset, tmp_path / "out", TuneOptions(model=str(tiny_bert), epochs=2))
    assert result.dev_after >= result.dev_before
    assert any("expect little" in note for note in result.notes)


def test_one_document(tiny_bert: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    dataset = small_dataset()
    corpus = {key: replace(chunk, document_id="one") for key, chunk in dataset.corpus.items()}
    train = {query: judged for split in dataset.qrels.values() for query, judged in split.items()}
    result = finetune(
        RetrievalDataset(corpus, dataset.queries, {"train": train}), tmp_path / "out", options(tiny_bert, epochs=1)
    )
    assert result.dev_after >= result.dev_before


def test_truncation_is_told(tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = finetune(small_dataset(), tmp_path / "out", options(tiny_bert, epochs=1, max_length=8))
    assert "longer than the 8 tokens the model reads" in capsys.readouterr().err
    assert any("set max_length" in note for note in result.notes)


def test_a_teacher_matryoshka_and_an_anchor_together(tiny_bert: Path, tmp_path: Path) -> None:
    def teacher(queries: Any, chunks: Any) -> Any:
        shared = [[len(set(q.split()) & set(c.split())) for c in chunks] for q in queries]
        return np.array(shared, dtype=np.float32)

    wanted = options(tiny_bert, dimensions=(16,), anchor=0.1)
    result = finetune(small_dataset(), tmp_path / "out", wanted, teacher=teacher)
    assert result.dev_after > result.dev_before
    assert list(result.chosen["dev_by_dimension"]) == [16]
    vectors = open_embedder(str(tmp_path / "out")).embed_documents([c.content for c in small_dataset().corpus.values()])
    held = (vectors**2).sum(axis=0)
    assert (np.diff(held) < 0.02 * held.max()).all()  # most in the first dimension, least in the last


@pytest.mark.parametrize("dim", [0, -1, 33])
def test_lengths_that_vectors_do_not_have(tiny_bert: Path, tmp_path: Path, dim: int) -> None:
    with pytest.raises(UsageError, match=f"dimensions: {dim}: this model's vectors have 32"):
        finetune(small_dataset(), tmp_path / "out", options(tiny_bert, dimensions=(32, dim)))
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.parametrize("teacher", ["lexical", "tiny_static", "cross-encoder:"])
def test_teachers_by_name(tiny_bert: Path, tmp_path: Path, request: pytest.FixtureRequest, teacher: str) -> None:
    name = teacher
    if teacher == "tiny_static":
        name = str(request.getfixturevalue(teacher))
    elif teacher == "cross-encoder:":
        name += str(models.save_cross_encoder(tmp_path / "reranker"))
    own, taught = (
        finetune(small_dataset(), tmp_path / f"{given}".strip("/:").replace("/", "-"), options(
            tiny_bert, epochs=1, teacher=given)) for given in (None, name)
    )  # fmt: skip
    assert taught.dev_after >= taught.dev_before
    assert not close(own.path, taught.path, atol=1e-4)


def test_a_lexical_teacher_needs_the_texts_in_memory(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="stay on disk"):
        finetune(stored_dataset(), tmp_path / "out", options(tiny_bert, teacher="lexical"))


def test_checkpointed_activations_and_bf16_teach_as_well(tiny_decoder: Path, tmp_path: Path) -> None:
    plain = finetune(small_dataset(), tmp_path / "plain", options(tiny_decoder, epochs=1))
    again = finetune(small_dataset(), tmp_path / "again", options(tiny_decoder, epochs=1, gradient_checkpointing=True))
    assert close(plain.path, again.path, atol=1e-5)
    rounded = finetune(small_dataset(), tmp_path / "rounded", options(tiny_decoder, rate=5e-3, precision="bf16"))
    assert rounded.chosen["precision"] == "bf16"
    assert rounded.dev_after > rounded.dev_before


def test_checkpointed_layers_are_not_packed(tiny_bert: Path, tmp_path: Path) -> None:
    ran: list[str] = []
    hook = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: ran.append(type(module).__name__))
    try:
        found = [
            finetune(small_dataset(), tmp_path / f"{again}", options(tiny_bert, epochs=1, gradient_checkpointing=again))
            for again in (False, True)
            if not ran.clear()  # type: ignore[func-returns-value]
        ]
    finally:
        hook.remove()
    assert "BertLayer" in ran  # a packed transformer calls none
    assert close(found[0].path, found[1].path, atol=1e-4)


def test_remembered_chunks_raise_the_loss_without_diverging(tiny_bert: Path, tmp_path: Path) -> None:
    wanted = options(tiny_bert, batch=2, negatives=0, rate=1e-6, epochs=2, remember=60)
    progress = Progress(tmp_path / "events.jsonl", terminal=False)
    finetune(small_dataset(), tmp_path / "out", wanted, progress)
    losses = [line["loss"] for line in events(progress, "train")]
    assert np.mean(losses[-10:]) > 2 * max(losses[0], 1.0)
    assert len(losses) == events(progress, "train")[-1]["step"] == 56


def test_a_loss_that_rises_far_above_its_start_is_diverging() -> None:
    state = State()
    assert not any(state.diverging(loss) for loss in [3.0, 5.0, 2.0, 1.0] * 5)
    assert [state.diverging(12.0) for _ in range(12)].index(True) == 4


def test_an_anchor_holds_general_text(tiny_bert: Path, tmp_path: Path) -> None:
    texts = ["the moon in summer rain", "salt water of the sea", "a train to the city at night"]
    (tmp_path / "general.txt").write_text("\n\n".join(texts))
    anchored = {"anchor_texts": str(tmp_path / "general.txt"), "anchor": 30.0}
    free, held = (
        finetune(small_dataset(), tmp_path / f"{len(given)}", options(tiny_bert, rate=3e-3, **given))
        for given in ({}, anchored)
    )
    base = open_embedder(str(tiny_bert)).embed_documents(texts)
    moved = [1 - (base * open_embedder(str(found.path)).embed_documents(texts)).sum(1).mean() for found in (free, held)]
    assert moved[1] < moved[0] / 3
    with pytest.raises(InputError, match="cannot be read"):
        nothing = {"anchor_texts": str(tmp_path / "nothing"), "anchor": 0.1}
        finetune(small_dataset(), tmp_path / "out", options(tiny_bert, **nothing))


def test_auto_keeps_what_dev_prefers(tiny_bert: Path, tmp_path: Path) -> None:
    result = finetune(small_dataset(), tmp_path / "out", options(tiny_bert, method="auto", epochs=1))
    assert result.path == tmp_path / "out"
    assert (result.path / "model.safetensors").exists()
    told = re.fullmatch(
        r"auto kept (\w+): nDCG@10 on dev among all chunks was lora ([\d.]+); full ([\d.]+)\.", result.notes[-1]
    )
    assert told is not None and told[1] == ("lora" if float(told[2]) >= float(told[3]) else "full")
    board = evaluate(with_dev(small_dataset()), [str(result.path)], "dev").rows[0]  # among all chunks
    assert board.measures["nDCG@10"] == pytest.approx(max(float(told[2]), float(told[3])), abs=1e-2)  # in bf16


def test_auto_keeps_what_it_has_where_the_next_method_fails(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Tuning.into

    def into(self: Tuning, out: Path) -> TuneResult:
        if self.options.method == "full":
            raise TrainingError("training diverged.")
        return real(self, out)

    monkeypatch.setattr(Tuning, "into", into)
    result = finetune(small_dataset(), tmp_path / "out", options(tiny_bert, method="auto", rate=1e-2))
    assert result.method == "lora" and result.dev_after > result.dev_before
    assert result.notes[-1].endswith("full failed: training diverged.")


def test_low_rank_additions_find_the_base_in_the_cache(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[int] = []
    real = LocalEmbedder.stream

    def stream(self: LocalEmbedder, texts: Sequence[str], role: Any) -> Any:
        embedded.append(len(texts))
        return real(self, texts, role)

    monkeypatch.setattr(LocalEmbedder, "stream", stream)
    finetune(small_dataset(), tmp_path / "full", options(tiny_bert, epochs=1))
    once = sum(embedded)
    finetune(small_dataset(), tmp_path / "lora", options(tiny_bert, method="lora", epochs=1))
    assert 0 <= sum(embedded) - once <= 1 < once  # one text tells the dimensions


def test_a_model_of_two_encoders_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    ways: Any = [list(SentenceTransformer(str(tiny_bert))) for _ in range(2)]
    router = Router.for_query_document(query_modules=ways[0], document_modules=ways[1])
    SentenceTransformer(modules=[router], device="cpu").save(str(tmp_path / "two"))
    for method in ("full", "lora", "auto"):
        with pytest.raises(ModelError, match="different ways"):
            finetune(small_dataset(), tmp_path / "out", options(tmp_path / "two", method=method))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch", 1),
        ("method", "LORA"),
        ("precision", "fp16"),
        ("epochs", -1.0),
        ("temperature", 0.0),
        ("lora_rank", 0),
        ("warmup", 1.5),
        ("rate", 0.0),
    ],
)
def test_values_that_make_no_sense_are_named(name: str, value: float | str) -> None:
    with pytest.raises(UsageError, match=rf"tune\.{name}: .*: expected"):
        TuneOptions(**{name: value})  # type: ignore[arg-type]


def test_negatives_that_are_not_mined_cannot_be_mined_anew() -> None:
    with pytest.raises(UsageError, match=r"tune\.refresh: no negatives"):
        TuneOptions(refresh=2, negatives=0)


def test_auto_stops_where_low_rank_gains_nothing(tiny_bert: Path, tmp_path: Path) -> None:
    result = finetune(small_dataset(), tmp_path / "out", options(tiny_bert, method="auto", epochs=1, rate=1e-12))
    assert (result.method, result.chosen["kept"]) == ("lora", "base")
    assert result.notes[-1].endswith("training every weight was not tried.")


def test_training_that_diverges_at_once_is_an_error_that_leaves_nothing(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="diverged before it was any better") as caught:
        finetune(small_dataset(), tmp_path / "out", options(tiny_bert, rate=1e6, warmup=0.0, temperature=1e-3))
    assert "tune.rate" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["vectune-cache"]


def test_auto_trains_every_weight_where_there_is_no_transformer(tiny_static: Path, tmp_path: Path) -> None:
    result = finetune(small_dataset(), tmp_path / "out", options(tiny_static, method="auto", rate=5e-3))
    assert result.method == "full"
    assert result.dev_after > result.dev_before


def test_explain_knows_a_table_of_word_vectors(tiny_static: Path) -> None:
    reasons = {what: value for what, value, _ in explain(small_dataset(), TuneOptions(model=str(tiny_static)))}
    assert reasons["rate"] == "0.005" and "max_length" not in reasons


def test_explain_gives_a_reason_for_everything(tiny_bert: Path) -> None:
    reasons = {what: (value, why) for what, value, why in explain(small_dataset(), TuneOptions(rate=3e-5))}
    assert {"epochs", "batch", "rate", "negatives", "precision", "dev", "pool"} <= reasons.keys()
    assert reasons["rate"] == ("3e-05", "as asked")
    assert all(why for _, why in reasons.values())


def test_explain_tells_the_rates_of_both_methods_that_auto_tries(tiny_bert: Path) -> None:
    reasons = {what: value for what, value, _ in explain(small_dataset(), TuneOptions(method="auto", batch=64))}
    assert (reasons["rate"], reasons["rate, all weights"]) == ("0.001", "0.0001")


def test_auto_on_disk_keeps_what_a_killed_start_had_finished(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = Tuning.into, list[str | None]()

    def into(self: Tuning, out: Path) -> TuneResult:
        tried.append(self.options.method)
        if tried == ["lora", "full"]:
            raise KeyboardInterrupt
        return real(self, out)

    monkeypatch.setattr(Tuning, "into", into)
    wanted = options(tiny_bert, method="auto", epochs=1)
    with pytest.raises(KeyboardInterrupt):
        finetune(stored_dataset(), tmp_path / "out", wanted)
    finetune(stored_dataset(), tmp_path / "out", wanted)
    assert tried == ["lora", "full", "full"]


def test_bad_input_is_refused_before_anything_is_written(tiny_bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ModelError):
        finetune(small_dataset(), out, options(tmp_path / "nowhere"))
    with pytest.raises(DatasetError):
        finetune(RetrievalDataset({}, {}, {}), out, options(tiny_bert))
    with pytest.raises(UsageError, match="no tracker 'paper'"):
        finetune(small_dataset(), out, options(tiny_bert, track=("paper",)))
    with pytest.raises(MissingExtraError, match="mlflow"):
        finetune(small_dataset(), out, options(tiny_bert, track=("mlflow",)))
    assert not out.exists()
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    with pytest.raises(OutputError):
        finetune(small_dataset(), out, options(tiny_bert))
