from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.models import save_bert

from vectune.dataset import RetrievalDataset
from vectune.records import Chunk, Query
from vectune.training.finetune import finetune
from vectune.training.options import TuneOptions

THINGS = (
    "apple battery beer bread bridge car cat city coffee contract device dog engine fire fish garden glass lamp law "
    "letter machine milk moon music"
).split()
USES = ("open", "close", "heat", "sell")


def small_dataset(documents: int = 24) -> RetrievalDataset:
    """A document for each thing with a chunk for each use; queries name both in other words' company."""
    corpus, queries, qrels = {}, {}, {}
    for number, thing in enumerate(THINGS[:documents]):
        for use in USES:
            chunk = Chunk(f"you can {use} the {thing} with your hand", document_id=thing, id=f"{thing}-{use}")
            query = Query(f"how do I {use} a {thing}", id=f"q-{thing}-{use}")
            corpus[chunk.id], queries[query.id] = chunk, query
            split = "test" if number % 4 == 3 else "train"
            qrels.setdefault(split, {})[query.id] = {chunk.id: 1}
    return RetrievalDataset(corpus, queries, qrels, {"name": "small"})


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_bert(tmp_path_factory.mktemp("models") / "bert"))


def options(model: str, **given: object) -> TuneOptions:
    return TuneOptions(**{"model": model, "precision": "fp32", "epochs": 3, "rate": 1e-3, **given})  # type: ignore[arg-type]


def test_the_result_opens_and_is_no_worse_than_the_base_on_dev(bert: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    result = finetune(small_dataset(), tmp_path / "out", options(bert))
    assert result.dev_after >= result.dev_before
    tuned, base = SentenceTransformer(str(result.path)), SentenceTransformer(bert)
    assert tuned.encode_query("how do I heat a lamp").shape == base.encode_query("how do I heat a lamp").shape
    assert tuned.prompts == base.prompts
    assert tuned.max_seq_length == base.max_seq_length
    assert [m.p for m in tuned.modules() if hasattr(m, "p")] == [m.p for m in base.modules() if hasattr(m, "p")]
    marker = json.loads((tmp_path / "out" / "vectune.json").read_text())
    assert (marker["kind"], marker["base"]) == ("full", bert)
    assert not (tmp_path / ".out.work").exists()
