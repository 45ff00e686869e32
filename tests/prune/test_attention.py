from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.families import layout
from kronpress.layers import FusedLinear, SubmatrixLinear, bias_of, weight_of
from kronpress.prune import Prune
from kronpress.records import FactorizeRecord
from kronpress.step import Workbench
from tests.conformance.test_families import build
from tests.tiny import DIM, bench, factorized, logits, tiny_bert, tiny_gpt2, tiny_llama

pytestmark = pytest.mark.usefixtures("in_float32")
Build = Callable[[], PreTrainedModel]
BUILDERS = pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2, tiny_bert])
SIZE = 4  # of a head of the tiny models


def pruned(model: PreTrainedModel, folder: Path, **fields: Any) -> tuple[Workbench, FactorizeRecord]:
    work = bench(model, folder)
    step = Prune(**{"keep": None, "fit": {"tokens": 2048, "window": 64, "ridge": 1e-5}} | fields)
    step.check(work)
    return work, step.run(work)


def rows_of(model: PreTrainedModel, role: str, *, block: int) -> list[torch.Tensor]:
    """Weight and bias of a role in the dense model, head by head; changing them changes the model."""
    attention = layout(model).attentions[block]
    layer = model.get_submodule(attention.paths[role])
    tensors = [weight_of(layer), *([layer.bias.detach()] if bias_of(layer) is not None else [])]
    return [attention.rows(tensor, role=role).unflatten(0, (-1, SIZE)) for tensor in tensors]


@BUILDERS
def test_values_of_half_the_rank_lose_half_their_numbers_and_nothing_changes(build: Build, tmp_path: Path) -> None:
    model = build()
    for block in range(len(layout(model).attentions)):
        for values in rows_of(model, "value", block=block):
            values[:, 2:] = values[:, :2].flip(1) * 0.5
    work, record = pruned(model, tmp_path, value_output=0.5)
    torch.testing.assert_close(logits(work.student), logits(model), atol=1e-3, rtol=1e-3)
    assert all(change.relative_error < 1e-2 for change in record.modules)
    for attention in layout(work.student).attentions:
        output = work.student.get_submodule(attention.output)
        assert isinstance(output, SubmatrixLinear)
        assert output.submatrix.shape == (DIM, DIM // 2)


@BUILDERS
def test_numbers_that_no_score_needs_go(build: Build, tmp_path: Path) -> None:
    model = build()
    for block in range(len(layout(model).attentions)):
        for numbers in rows_of(model, "query", block=block) + rows_of(model, "key", block=block):
            numbers[:, 1::2] = 0.0  # a frequency has rows 1 and 3
    work, record = pruned(model, tmp_path, query_key=0.5)
    torch.testing.assert_close(logits(work.student), logits(model), atol=1e-3, rtol=1e-3)
    for attention, change in zip(layout(work.student).attentions, record.modules, strict=True):
        layer = work.student.get_submodule(attention.paths["key"])
        key = layer.parts[1] if isinstance(layer, FusedLinear) else layer
        assert isinstance(key, SubmatrixLinear)
        assert len(key.submatrix) == attention.groups * SIZE // 2
        assert change.layer == f"{attention.groups * SIZE // 2} of {attention.groups * SIZE} numbers of keys"


def test_positions_keep_both_numbers_of_a_frequency(tmp_path: Path) -> None:
    work, _ = pruned(tiny_llama(), tmp_path, query_key=0.5)
    for attention in layout(work.student).attentions:
        for role, heads in (("key", attention.groups), ("query", attention.heads)):
            kept = torch.zeros(heads, SIZE, dtype=torch.bool)
            kept.view(-1)[work.student.get_submodule(attention.paths[role]).row_index.long()] = True
            assert torch.equal(kept[:, : SIZE // 2], kept[:, SIZE // 2 :])


@BUILDERS
def test_what_the_heads_lose_the_output_makes_up_for(build: Build, tmp_path: Path) -> None:
    found = {}
    for share in (0.75, 0.5, 0.25):
        work, record = pruned(build(), tmp_path, value_output=share)
        found[share] = sum(change.relative_error for change in record.modules)
        saved = sum(change.parameters_before - change.parameters_after for change in record.modules)
        assert record.parameters + saved == sum(parameter.numel() for parameter in work.teacher.parameters())
    assert 0 < found[0.75] < found[0.5] < found[0.25]


def test_neurons_are_chosen_after_the_heads_have_changed(tmp_path: Path) -> None:
    work, record = pruned(tiny_llama(), tmp_path, keep=0.5, value_output=0.5, query_key=0.5)
    assert [change.role for change in record.modules] == [
        "attention",
        "feed_forward",
    ] * work.student.config.num_hidden_layers
    assert work.student.config.intermediate_size == work.teacher.config.intermediate_size // 2
    assert record.method["query_key"] == record.method["value_output"] == 0.5


@pytest.mark.parametrize(
    ("model", "shares", "message"),
    [
        (lambda _: build("qwen3"), {"query_key": 0.5}, "a norm over whole queries follows"),
        (lambda _: build("gpt_neox"), {"query_key": 0.5}, "positions turn 0.25 of the numbers"),
        (lambda _: build("olmo2"), {"value_output": 0.5}, "the attention of Olmo2ForCausalLM is not known here"),
        (lambda folder: factorized(tiny_llama(), folder), {"value_output": 0.5}, "has factors or codes already"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_done_is_said(
    model: Callable[[Path], PreTrainedModel], shares: dict[str, float], message: str, tmp_path: Path
) -> None:
    with pytest.raises(KronpressError, match=message):
        pruned(model(tmp_path), tmp_path, **shares)


def test_a_step_that_prunes_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="give a share for one of them"):
        Prune(keep=None)


def test_all_numbers_stay_all_where_they_are_no_eights(tmp_path: Path) -> None:
    model = tiny_gpt2(n_embd=70, n_head=2)  # 70 values, which would become 72
    _, record = pruned(model, tmp_path, value_output=0.999)
    assert {change.layer for change in record.modules} == {"70 of 70 numbers of values"}
