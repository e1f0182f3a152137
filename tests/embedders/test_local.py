"""LocalEmbedder beside sentence-transformers itself, and every way in which a model can be broken."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import models
from vectune.embedders import models as names
from vectune.embedders.encoding import Encoding
from vectune.embedders.factory import open_embedder
from vectune.embedders.fast import FastBert
from vectune.embedders.fingerprint import model_fingerprint
from vectune.embedders.loading import load_model
from vectune.embedders.local import LocalEmbedder
from vectune.embedders.machine import bf16_speedup, fast_bf16
from vectune.embedders.options import EmbedOptions
from vectune.embedders.packed import mix
from vectune.errors import ModelError, UsageError

TEXTS = ["how to brew coffee", "the cat", "water of the river " * 40, "x", "ÄÖ 日本 №5", "the old sea and the ship"] * 3
FP32 = EmbedOptions(precision="fp32")
FIVE = int(transformers.__version__.partition(".")[0]) >= 5  # version 4 says the same in other words


@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_decoder", "tiny_static"])
@pytest.mark.parametrize("role", ["query", "document"])
def test_vectors_are_those_of_sentence_transformers(kind: str, role: str, request: pytest.FixtureRequest) -> None:
    embedder = LocalEmbedder(str(request.getfixturevalue(kind)), FP32)
    embed = embedder.embed_queries if role == "query" else embedder.embed_documents
    theirs = getattr(embedder.model, f"encode_{role}")(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(embed(TEXTS), theirs, atol=2e-6)


@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_decoder", "tiny_static"])
def test_bf16_stays_close(kind: str, request: pytest.FixtureRequest) -> None:
    folder = str(request.getfixturevalue(kind))
    exact, rounded = (LocalEmbedder(folder, EmbedOptions(precision=p)) for p in ("fp32", "bf16"))
    assert np.sum(exact.embed_documents(TEXTS) * rounded.embed_documents(TEXTS), axis=1).min() > 0.998
    assert exact.fingerprint == rounded.fingerprint  # an adapter fits both
    assert exact.cache_key != rounded.cache_key  # but their vectors are kept apart


def test_bert_takes_the_packed_way_and_others_do_not(tiny_bert: Path, tiny_decoder: Path) -> None:
    ways = []
    for folder in (tiny_bert, tiny_decoder):
        model = load_model(str(folder))
        ways.append(Encoding.of(model, "query", "", "fp32", None).fast is not None)
    assert ways == [True, False]


@pytest.mark.parametrize("tokens", [1, 100, 10**6])
def test_the_size_of_batches_does_not_matter(tiny_bert: Path, tiny_decoder: Path, tokens: int) -> None:
    for folder in (tiny_bert, tiny_decoder):
        usual = LocalEmbedder(str(folder), FP32).embed_documents(TEXTS)
        other = LocalEmbedder(str(folder), EmbedOptions(precision="fp32", batch_tokens=tokens)).embed_documents(TEXTS)
        np.testing.assert_allclose(other, usual, atol=2e-6)


def test_other_pooling_and_further_modules(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Pooling

    base = SentenceTransformer(str(models.save_bert(tmp_path / "base")), device="cpu")
    for mode, packed in (("cls", True), ("mean", True), ("max", False)):
        made = SentenceTransformer(modules=[base[0], Pooling(32, pooling_mode=mode), Dense(32, 12)], device="cpu")
        embedder = LocalEmbedder(made, FP32)
        theirs = made.encode_document(TEXTS, normalize_embeddings=True)
        np.testing.assert_allclose(embedder.embed_documents(TEXTS), theirs, atol=2e-6)
        assert (Encoding.of(made, "document", "", "fp32", None).fast is not None) is packed
        assert embedder.dim == 12


def test_prompts_that_pooling_leaves_out(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(models.save_bert(tmp_path / "base")), device="cpu")
    model.set_pooling_include_prompt(False)
    embedder = LocalEmbedder(model, FP32)
    theirs = model.encode_query(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(embedder.embed_queries(TEXTS), theirs, atol=2e-6)


def test_a_router_sends_each_role_its_way(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    parts: list[Any] = [
        SentenceTransformer(str(models.save_bert(tmp_path / str(s), seed=s)), device="cpu") for s in (0, 1)
    ]
    made = SentenceTransformer(
        modules=[Router.for_query_document(query_modules=list(parts[0]), document_modules=list(parts[1]))], device="cpu"
    )
    made.save_pretrained(str(tmp_path / "routed"), create_model_card=False)
    embedder = LocalEmbedder(str(tmp_path / "routed"), FP32)
    for role, embed in (("query", embedder.embed_queries), ("document", embedder.embed_documents)):
        theirs = getattr(made, f"encode_{role}")(TEXTS, normalize_embeddings=True)
        np.testing.assert_allclose(embed(TEXTS), theirs, atol=2e-6)
    assert not np.allclose(embedder.embed_queries(TEXTS), embedder.embed_documents(TEXTS), atol=1e-2)


def test_roberta_positions_start_behind_the_padding(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import RobertaConfig, RobertaModel

    tokenizer = models.word_tokenizer()
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=66, type_vocab_size=1, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path / "bare")
    tokenizer.save_pretrained(tmp_path / "bare")
    made = SentenceTransformer(
        modules=[Transformer(str(tmp_path / "bare"), max_seq_length=64), Pooling(32, pooling_mode="mean")], device="cpu"
    )
    theirs = made.encode_document(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(LocalEmbedder(made, FP32).embed_documents(TEXTS), theirs, atol=2e-6)
    assert Encoding.of(made, "document", "", "fp32", None).fast is not None


def test_changed_weights_change_vectors_and_fingerprint(tiny_bert: Path) -> None:
    model = load_model(str(tiny_bert))
    embedder = LocalEmbedder(model, FP32)
    before, fingerprint = embedder.embed_documents(TEXTS), embedder.fingerprint
    bert: Any = model[0]
    with torch.no_grad():
        bert.model.encoder.layer[0].output.dense.weight.mul_(2)
    assert not np.allclose(embedder.embed_documents(TEXTS), before, atol=1e-2)
    assert embedder.fingerprint != fingerprint
    np.testing.assert_allclose(
        embedder.embed_documents(TEXTS), model.encode_document(TEXTS, normalize_embeddings=True), atol=2e-6
    )


def test_changes_that_torch_does_not_count_change_vectors(tiny_bert: Path) -> None:
    """A fused optimizer leaves ``_version`` as it was; the fingerprint sees the change, and so must the vectors."""
    model = load_model(str(tiny_bert))
    embedder = LocalEmbedder(model, FP32)
    before = embedder.embed_documents(TEXTS)
    bert: Any = model[0]
    weight = bert.model.encoder.layer[0].output.dense.weight
    version = weight._version
    weight.data.mul_(2)
    assert weight._version == version
    assert not np.allclose(embedder.embed_documents(TEXTS), before, atol=1e-2)
    np.testing.assert_allclose(
        embedder.embed_documents(TEXTS), model.encode_document(TEXTS, normalize_embeddings=True), atol=2e-6
    )


def test_weights_of_a_model_opened_by_name_are_not_read_again(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = LocalEmbedder(str(tiny_bert), FP32)
    monkeypatch.setattr(FastBert, "checksum", lambda self: pytest.fail("was read"))
    assert embedder.embed_documents(TEXTS).shape == embedder.embed_documents(TEXTS).shape


def test_the_fingerprint_survives_moving_and_saving_again(tiny_bert: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bert, tmp_path / "moved")
    load_model(str(tiny_bert)).save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    found = {LocalEmbedder(str(folder)).fingerprint for folder in (tiny_bert, tmp_path / "moved", tmp_path / "saved")}
    assert len(found) == 1
    model = load_model(str(tiny_bert))
    assert found == {model_fingerprint(model, LocalEmbedder(model).prompts)}


def test_what_is_inside_a_route_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Router, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    models.save_bert(tmp_path / "base")
    bare = str(tmp_path / "base-bare")
    weight = torch.eye(32)

    def routed(pooling: str = "mean", activation: Any = None, length: int = 64, lower: bool = True) -> str:
        documents = Transformer(bare, max_seq_length=64)
        queries = Transformer(bare, max_seq_length=length)
        if not lower:
            backend: Any = queries.tokenizer.backend_tokenizer
            backend.normalizer = None
        dense = Dense(32, 32, bias=False, activation_function=activation or torch.nn.Identity(), init_weight=weight)
        route = Router.for_query_document(
            query_modules=[queries, Pooling(32, pooling_mode=pooling), dense],
            document_modules=[documents, Pooling(32, pooling_mode="mean")],
        )
        return LocalEmbedder(SentenceTransformer(modules=[route], device="cpu"), FP32).fingerprint

    kinds = [routed(), routed("max"), routed(activation=torch.nn.ReLU()), routed(length=32), routed(lower=False)]
    assert len(set(kinds)) == len(kinds)
    assert routed() == kinds[0]


def test_the_fingerprint_of_a_model_without_routes_is_that_of_earlier_versions(tiny_static: Path) -> None:
    """Vectors and adapters are kept by it."""
    model = load_model(str(tiny_static))
    facts: dict[str, Any] = {
        "modules": [[type(module).__name__, {}] for module in model],
        "prompts": {},
        "max_length": str(model.max_seq_length),
        "dimensions": None,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    tokenizer = json.loads(model.tokenizer.to_str())
    digest.update(
        json.dumps({k: v for k, v in tokenizer.items() if k not in ("padding", "truncation")}, sort_keys=True).encode()
    )
    for key, tensor in model.state_dict().items():
        digest.update(f"{key} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    assert model_fingerprint(model, {}) == digest.hexdigest()


@pytest.mark.parametrize(
    ("key", "value", "same"),
    [
        ("use_cache", None, True),  # turned round: its default changed with transformers 5
        ("top_k", 50, True),  # written out by transformers 4 alone
        ("hidden_dropout_prob", 0.3, True),
        ("hidden_act", "relu", False),
        ("layer_norm_eps", 1e-3, False),
        ("num_attention_heads", 2, False),
    ],
)
def test_settings_count_where_vectors_depend_on_them(
    tiny_bert: Path, tmp_path: Path, key: str, value: Any, same: bool
) -> None:
    shutil.copytree(tiny_bert, tmp_path / "edited")
    file = tmp_path / "edited" / "config.json"
    config = json.loads(file.read_text())
    value = not config[key] if value is None else value
    assert config.get(key) != value
    file.write_text(json.dumps({**config, key: value}))
    found = {LocalEmbedder(str(folder)).fingerprint for folder in (tiny_bert, tmp_path / "edited")}
    assert len(found) == (1 if same else 2)


def test_the_default_models_fingerprint_outlives_upgrades() -> None:
    """The same with sentence-transformers 5.4 and transformers 4.57: indexes and adapters would not open otherwise."""
    expected = "042e813f65893eda621059000c8301c456fde2815162fa6b2c121b1b4edc1a35"
    assert LocalEmbedder(names.DEFAULT_MODEL, FP32).fingerprint == expected


def test_an_edited_folder_has_another_fingerprint(tiny_bert: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bert, tmp_path / "edited")
    before = LocalEmbedder(str(tmp_path / "edited")).fingerprint
    models.save_bert(tmp_path / "other", seed=5)
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "edited" / "model.safetensors")
    assert LocalEmbedder(str(tmp_path / "edited")).fingerprint != before


def test_what_is_truncated_is_told(tiny_bert: Path) -> None:
    embedder = LocalEmbedder(str(tiny_bert))
    long = "water " * 100
    # "document : " and [CLS], [SEP] count too
    assert embedder.token_lengths(["water " * 10, ""]).tolist() == [14, 4]
    assert embedder.truncated([long, "short", "water " * 60, "water " * 61]) == 2
    longer = LocalEmbedder(str(tiny_bert), EmbedOptions(max_length=128))
    assert (longer.max_length, longer.truncated([long])) == (128, 0)
    assert longer.fingerprint != embedder.fingerprint


@pytest.mark.parametrize("tokens", [3, 129])
def test_a_length_that_the_model_has_not(tiny_bert: Path, tokens: int) -> None:
    with pytest.raises(ModelError, match=f"max_length is {tokens}"):
        LocalEmbedder(str(tiny_bert), EmbedOptions(max_length=tokens))


def test_dimensions_keep_the_leading_ones(tiny_bert: Path) -> None:
    whole = LocalEmbedder(str(tiny_bert), FP32).embed_documents(TEXTS)
    part = LocalEmbedder(str(tiny_bert), EmbedOptions(precision="fp32", dimensions=8))
    expected = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(part.embed_documents(TEXTS), expected, atol=1e-6)
    assert part.dim == 8


def test_half_a_surrogate_pair_does_no_harm(tiny_bert: Path) -> None:
    assert LocalEmbedder(str(tiny_bert)).embed_documents(["broken \ud83d pdf", "fine"]).shape == (2, 32)


def test_a_text_without_a_vector_is_named(tiny_static: Path) -> None:
    with pytest.raises(ModelError, match="a zero vector for 1 of 2 texts, first 2: ''"):
        LocalEmbedder(str(tiny_static)).embed_documents(["cat", ""])


def test_broken_weights_are_told(tmp_path: Path) -> None:
    model = load_model(str(models.save_bert(tmp_path / "nan")))
    bert: Any = model[0]
    with torch.no_grad():
        bert.model.encoder.layer[1].output.dense.bias[0] = float("nan")
    with pytest.raises(ModelError, match="NaN or infinity for 2 of 2 texts"):
        LocalEmbedder(model).embed_documents(["cat", "water"])


def test_whether_bf16_is_fast_is_measured_once(own_cache: Path) -> None:
    first = bf16_speedup()
    assert first > 0
    (kept,) = (own_cache / "machine").glob("*.json")
    kept.write_text(json.dumps({"bf16_speedup": 0.01}))
    assert bf16_speedup() == 0.01
    fast_bf16.cache_clear()
    assert fast_bf16("cpu") is False
    fast_bf16.cache_clear()


def test_an_unknown_precision(tiny_bert: Path) -> None:
    with pytest.raises(UsageError, match="precision is 'int3'"):
        LocalEmbedder(str(tiny_bert), EmbedOptions(precision="int3"))  # type: ignore[arg-type]


# Models that cannot be loaded


def test_no_such_folder_and_no_model_in_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        open_embedder(str(tmp_path / "missing"))
    with pytest.raises(ModelError, match="holds no model"):
        open_embedder(str(tmp_path))
    (tmp_path / "my-adapter").mkdir()
    with pytest.raises(ModelError) as caught:
        open_embedder(str(tmp_path / "my-adaptor"))
    assert caught.value.hint == f"Did you mean {tmp_path / 'my-adapter'}? "
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="is a file"):
        open_embedder(str(tmp_path / "file"))


def test_no_hub() -> None:
    """The tests' environment says HF_HUB_OFFLINE."""
    with pytest.raises(ModelError, match="nobody/nothing: not on this machine, and the model hub cannot be") as error:
        open_embedder("nobody/nothing")
    assert "vectune[offline]" in error.value.hint
    assert "Did you mean" not in error.value.hint
    with pytest.raises(ModelError) as error:
        open_embedder("all-MinLM-L6-v2")
    assert error.value.hint.startswith("Did you mean all-MiniLM-L6-v2? ")


@pytest.mark.parametrize("name", ["two words", "some:thing", "a/b/c"])
def test_what_cannot_be_a_name_on_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match="cannot be a model's name"):
        open_embedder(name)


def test_an_address_where_no_hub_answers() -> None:
    """One attempt: the hub's own client would try for minutes."""
    asked = "from vectune.embedders.models import local_folder; local_folder('nobody/nothing')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True, timeout=60)
    assert "ModelError: nobody/nothing: not on this machine, and the model hub cannot be reached." in done.stderr


def test_a_tokenizer_that_is_missing(tiny_bert: Path, tmp_path: Path) -> None:
    """transformers makes one up that knows no word, and every text has the same vector."""
    shutil.copytree(tiny_bert, tmp_path / "model")
    for file in (tmp_path / "model").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="knows no words" if FIVE else "Unrecognized processing class"):
        load_model(str(tmp_path / "model"))


@pytest.mark.parametrize("kept", ["pickled", "nothing"])
def test_pickled_weights_are_refused(tiny_bert: Path, tmp_path: Path, kept: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    (folder / "model.safetensors").unlink()
    if kept == "pickled":
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"any": "thing"}))
    with pytest.raises(ModelError, match="are pickled" if kept == "pickled" else "holds no weights"):
        open_embedder(str(folder))


def test_weights_for_other_runtimes_are_nobodys_business(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    for other in ("openvino/openvino_model.bin", "onnx/deep/model.bin"):
        (folder / other).parent.mkdir(parents=True)
        (folder / other).write_bytes(b"a graph")
    assert open_embedder(str(folder)).dim == 32


def _in_hub_cache(folder: Path, cache: Path, *left_out: str) -> Path:
    """The folder as the snapshot of mine/small; names in ``left_out`` did not arrive."""
    repository = cache / "models--mine--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    snapshot = repository / "snapshots" / "c0ffee"
    shutil.copytree(folder, snapshot, ignore=shutil.ignore_patterns(*left_out))
    return snapshot


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_cached_model_opens_without_the_hub(tiny_bert: Path, hub_cache: Path) -> None:
    snapshot = _in_hub_cache(tiny_bert, hub_cache)
    assert names.model_path("mine/small") == str(snapshot)
    assert open_embedder("mine/small").dim == 32


def test_a_download_that_was_killed_is_fetched_again(tiny_bert: Path, hub_cache: Path) -> None:
    snapshot = _in_hub_cache(tiny_bert, hub_cache, "model.safetensors")
    assert names.model_path("mine/small") == "mine/small"
    (snapshot / "model-1.safetensors").write_bytes(b"the first of two")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert names.model_path("mine/small") == "mine/small"
    (snapshot / "model-2.safetensors").write_bytes(b"the second")
    assert names.model_path("mine/small") == str(snapshot)


def test_a_plain_transformers_model_opens_without_the_hub_where_it_is_known_to_be_one(
    tiny_bert: Path, hub_cache: Path
) -> None:
    snapshot = _in_hub_cache(tiny_bert, hub_cache, "modules.json", "1_Pooling", "2_Normalize")
    assert names.model_path("mine/small") == "mine/small"  # transformers alone fetched it: its pooling may be missing
    (snapshot / ".gitattributes").write_text("")
    assert names.model_path("mine/small") == str(snapshot)
    (snapshot / ".gitattributes").unlink()
    told = hub_cache / "models--mine--small" / ".no_exist" / "c0ffee" / "modules.json"
    told.parent.mkdir(parents=True)
    told.write_text("")
    assert names.model_path("mine/small") == str(snapshot)


def _edited(folder: Path, to: Path, file: str, **fields: object) -> Path:
    shutil.copytree(folder, to)
    config = json.loads((to / file).read_text())
    (to / file).write_text(json.dumps({**config, **fields}))
    return to


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"hidden_size": 64}, "weights do not match the config: .*size mismatch" + " - ckpt" * FIVE),
        ({"num_hidden_layers": 3}, "the file lacks encoder.layer.2"),
        ({"model_type": "unheard"}, "cannot be loaded"),
    ],
)
def test_weights_and_config_that_do_not_match(
    tiny_bert: Path, tmp_path: Path, fields: dict[str, object], told: str
) -> None:
    with pytest.raises(ModelError, match=told):
        open_embedder(str(_edited(tiny_bert, tmp_path / "model", "config.json", **fields)))


def test_weights_that_were_cut_short(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="a file of weights is damaged"):
        load_model(str(folder))


def test_a_reranker_is_no_embedder(tiny_bert: Path, tmp_path: Path) -> None:
    folder = _edited(tiny_bert, tmp_path / "model", "config.json", architectures=["BertForSequenceClassification"])
    load_model(str(folder))  # with modules.json it is one, whatever it was made from
    (folder / "modules.json").unlink()
    with pytest.raises(ModelError, match="BertForSequenceClassification is no embedding model"):
        load_model(str(folder))


def test_foreign_code_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    auto = {"AutoConfig": "modeling_x.XConfig", "AutoModel": "modeling_x.XModel"}
    folder = _edited(tiny_bert, tmp_path / "model", "config.json", auto_map=auto, model_type="x-model")
    (folder / "modeling_x.py").write_text("raise SystemExit('must never run')")
    with pytest.raises(ModelError, match="Python code of its own, which is not run") as e:
        open_embedder(str(folder))
    assert "trust" in e.value.hint


@pytest.mark.parametrize("kind", ["evil.Module", "someone/model--evil.Module"])
def test_foreign_modules_are_refused(tiny_bert: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = kind
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "evil.py").write_text("raise SystemExit('must never run')")
    with pytest.raises(ModelError, match=rf"code of its own \({kind}\)") as e:
        open_embedder(str(folder))
    assert "--trust-remote-code" in e.value.hint


def test_the_packaged_default_is_checked(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    names._check_default_weights.cache_clear()
    with pytest.raises(ModelError, match="not the published ones"):
        names._check_default_weights(tmp_path / "model.safetensors")


def test_attention_scores_of_any_size(tmp_path: Path) -> None:
    """exp overflows above 88."""
    model = load_model(str(models.save_bert(tmp_path / "steep")))
    bert: Any = model[0]
    with torch.no_grad():
        for layer in bert.model.encoder.layer:
            layer.attention.self.query.weight.mul_(100)
    theirs = model.encode_document(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(LocalEmbedder(model, FP32).embed_documents(TEXTS), theirs, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("score", [-95.0, -88.0, 0.0, 87.0, 88.5, 95.0])
def test_attention_where_exponentials_fit_and_their_products_do_not(score: float, dtype: torch.dtype) -> None:
    """exp(87) fits, but ten times as much does not: a model tuned on squad had such scores."""
    key = torch.tensor([[[score], [score - 1]]], dtype=dtype)
    value = torch.tensor([[[100.0], [-60.0]]], dtype=dtype)
    query = torch.ones(1, 1, 1, dtype=dtype)
    found = mix(query, key, value, None).float()
    expected = torch.softmax((query @ key.transpose(1, 2)).float(), -1) @ value.float()
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02 if dtype == torch.float32 else 1.0)
