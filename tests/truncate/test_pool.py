from __future__ import annotations

from pathlib import Path

import pytest
import torch

import kronpress
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.families import FAMILIES, layout
from kronpress.layers import weight_of
from kronpress.truncate import Pool
from kronpress.truncate.pool import average, narrower
from tests import tiny
from tests.conformance.test_families import build, ids


@pytest.mark.parametrize("model_type", [name for name, family in FAMILIES.items() if family.has_attention])
def test_a_pooled_model_is_a_plain_one_of_half_the_width(model_type: str, tmp_path: Path) -> None:
    work = tiny.bench(build(model_type), tmp_path)
    record = Pool(width=tiny.DIM // 2).run(work)
    student = work.student
    assert student.config.hidden_size == tiny.DIM // 2
    assert record.parameters == sum(parameter.numel() for parameter in student.parameters())
    again = type(student).from_pretrained(kronpress.save(student, tmp_path / "saved")).eval()
    assert torch.equal(tiny.logits(again, ids()), tiny.logits(student, ids()))


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "phi3"])
def test_every_weight_is_a_mean_over_windows_of_rows_and_columns(model_type: str, tmp_path: Path) -> None:
    work = tiny.bench(build(model_type), tmp_path)
    Pool(width=tiny.DIM // 2).run(work)
    wide, narrow = (layout(model) for model in (work.teacher, work.student))
    for old, new in zip(wide.sites, narrow.sites, strict=True):
        before, after = (
            weight_of(model.get_submodule(site.path)) for model, site in ((work.teacher, old), (work.student, new))
        )
        for share, pooled in zip(old.split(before), new.split(after), strict=True):
            rows, columns = (size - left + 1 for size, left in zip(share.shape, pooled.shape, strict=True))
            windows = share.unfold(0, rows, 1).unfold(1, columns, 1)
            torch.testing.assert_close(pooled, windows.mean(dim=(-1, -2)))


def test_how_it_generates_stays(tmp_path: Path) -> None:
    work = tiny.bench(build("llama"), tmp_path)
    work.student.generation_config.eos_token_id = [6, 7]
    Pool(width=tiny.DIM // 2).run(work)
    assert work.student.generation_config.eos_token_id == [6, 7]


def test_heads_that_do_not_divide_their_size_are_pooled(tmp_path: Path) -> None:
    work = tiny.bench(build("gpt_neox", num_attention_heads=3, hidden_size=24), tmp_path)
    Pool(width=12).run(work)
    assert work.student.config.hidden_size == 12


def test_a_window_of_one_leaves_a_tensor() -> None:
    tensor = torch.randn(3, 5)
    assert torch.equal(average(tensor, tensor.shape), tensor)


def test_heads_become_fewer_or_smaller() -> None:
    model = build("llama")  # 4 heads of 4, 2 of them for keys
    fewer, smaller = narrower(model, 8), narrower(build("gpt2"), 8)
    assert (fewer.num_attention_heads, fewer.num_key_value_heads, fewer.head_dim) == (2, 1, 4)
    assert (smaller.n_embd, smaller.n_head) == (8, 2)
    with pytest.raises(KronpressError, match="width: 12 does not divide among 4 heads of an even size; choose a multi"):
        narrower(model, 12)
    with pytest.raises(KronpressError, match="width: 16 of 16 leaves out nothing"):
        narrower(model, 16)


def test_a_model_with_factors_is_refused(tmp_path: Path) -> None:
    work = tiny.bench(tiny.tiny_llama(), tmp_path)
    Factorize(method={"name": "van_loan", "right": (2, 2)}, sites="feed_forward").run(work)
    with pytest.raises(KronpressError, match="pool first"):
        Pool(width=8).check(work)
