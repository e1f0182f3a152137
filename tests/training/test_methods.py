from __future__ import annotations

import pytest

from tiny_dataset import small_dataset
from vectune.errors import UsageError
from vectune.training.methods import explain
from vectune.training.options import Method, TuneOptions


@pytest.mark.parametrize("method", ["adapter", "query", "auto"])
def test_methods_that_keep_the_index_are_explained_as_such(method: Method) -> None:
    told = {what: (value, why) for what, value, why in explain(small_dataset(), TuneOptions(method, keep_index=True))}
    assert told["method"] == (method, "as asked")
    assert told["documents"][1].endswith("never again")
    assert "epochs" not in told  # those belong to fine-tuning


def test_a_blend_uses_no_label_and_auto_without_the_index_is_fine_tuning() -> None:
    blend = {what: why for what, _, why in explain(small_dataset(), TuneOptions("blend"))}
    assert blend["steps"] == "no label is used"
    assert "epochs" in {what for what, _, _ in explain(small_dataset(), TuneOptions("auto"))}


def test_a_method_that_cannot_keep_the_index_is_refused() -> None:
    with pytest.raises(UsageError, match="needs every document embedded again"):
        explain(small_dataset(), TuneOptions("full", keep_index=True))
