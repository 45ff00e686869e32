"""Factors that are factorized anew, as a schedule of falling ranks does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.layers import KroneckerLinear, stored_numbers
from kronpress.quantize import Quantize
from tests.tiny import bench, logits, tiny_bert, tiny_gpt2, tiny_llama


def _low_rank(ratio: float, **fields: Any) -> Factorize:
    return Factorize(form={"name": "low_rank", "ratio": ratio}, sites="attention,feed_forward", **fields)


@pytest.mark.parametrize("build", [tiny_bert, tiny_gpt2, tiny_llama])
def test_a_lower_rank_comes_to_the_same_by_way_of_a_higher_one(build: Any, tmp_path: Path) -> None:
    straight, twice = bench(build(), tmp_path), bench(build(), tmp_path)
    _low_rank(0.3).run(straight)
    first = _low_rank(0.6).run(twice)
    _low_rank(0.3, again=True).check(twice)
    second = _low_rank(0.3, again=True).run(twice)
    torch.testing.assert_close(logits(twice.student), logits(straight.student), atol=1e-4, rtol=1e-4)
    assert stored_numbers(twice.student) == stored_numbers(straight.student) == second.parameters
    assert [change.parameters_before for change in second.modules] == [c.parameters_after for c in first.modules]


def test_another_form_may_follow_and_text_may_be_read(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    _low_rank(0.6).run(work)
    fit = {"name": "whitened", "tokens": 512, "window": 32}
    form = {"name": "kronecker", "right": (1, 2), "terms": 2}
    Factorize(form=form, fit=fit, sites="feed_forward", again=True).run(work)
    assert isinstance(work.student.get_submodule("model.layers.0.mlp.up_proj"), KroneckerLinear)


def test_what_would_be_lost_is_refused(tmp_path: Path) -> None:
    halved: dict[str, Any] = {"form": {"name": "kronecker", "right": (1, 2)}}
    tables, codes = bench(tiny_llama(), tmp_path), bench(tiny_llama(), tmp_path)
    Factorize(**halved, sites="embedding").run(tables)
    Quantize(weights=4).run(codes)
    for work, sites, message in (
        (tables, "embedding", "embed_tokens is a factorized table, which again: true does not take"),
        (codes, "up", r"up_proj has codes of a grid, which factors would lose"),
    ):
        step = Factorize(**halved, sites=sites, again=True)
        for call in (step.check, step.run):
            with pytest.raises(KronpressError, match=message):
                call(work)
