from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from kronpress.activations import BlockStream, walk
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.families import layout
from kronpress.layers import KroneckerLinear, bias_of, weight_of
from kronpress.linalg import refit
from kronpress.prune import Prune
from kronpress.prune.feed_forward import FeedForwardStatistic
from kronpress.prune.readout import Kept
from kronpress.prune.surgeon import Surgeon
from kronpress.records import FactorizeRecord
from kronpress.step import Workbench
from tests.tiny import WIDTH, bench, logits, some_ids, tiny_bert, tiny_gpt2, tiny_llama

pytestmark = pytest.mark.usefixtures("in_float32")
Build = Callable[[], PreTrainedModel]
BUILDERS = pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2, tiny_bert])
CALIBRATION = {"tokens": 4096, "window": 64}
Place = tuple[FeedForwardStatistic, torch.Tensor]


def pruned(
    model: PreTrainedModel, folder: Path, *, keep: float = 0.5, form: str = "narrow", **fit: Any
) -> tuple[Workbench, FactorizeRecord]:
    work = bench(model, folder)
    record = Prune(keep=keep, form=form, fit=CALIBRATION | fit).run(work)
    return work, record


def statistic_of(model: PreTrainedModel, folder: Path, *, block: int = 1) -> Place:
    """What is gathered of a block on text while all blocks are dense, and the states that leave it."""
    windows, place = bench(model, folder).training_windows(size=64)[:40], layout(model).feed_forwards[block]

    def wanted(index: int) -> list[FeedForwardStatistic]:
        return [FeedForwardStatistic(model, place)] if index == block else []

    for stop in walk(model, windows, wanted=wanted, with_dense=True, description="test"):
        if stop.statistics:
            (statistic,) = stop.statistics
    dense = BlockStream.begin(model, windows)
    for earlier in range(block + 1):
        dense.advance(model, block=earlier)
    return statistic, torch.cat(dense.hidden)


@BUILDERS
@pytest.mark.parametrize("keep", [0.5, 0.25, 0.7])
def test_exactly_the_requested_neurons_are_kept(build: Build, keep: float, tmp_path: Path) -> None:
    work, report = pruned(build(), tmp_path, keep=keep)
    kept, plan = round(keep * WIDTH), layout(work.student)
    assert getattr(work.student.config, plan.family.width_key) == kept
    for block in plan.feed_forwards:
        assert weight_of(work.student.get_submodule(block.down)).shape[1] == kept
        assert all(len(weight_of(work.student.get_submodule(path))) == kept for path in block.expanding)
        for path in block.expanding:  # whole rows of the dense matrix, in their order
            rows = (weight_of(work.teacher.get_submodule(path))[:, None] == weight_of(work.student.get_submodule(path))
                    ).all(-1).nonzero()  # fmt: skip
            assert rows[:, 1].tolist() == list(range(kept))
    parameters = sum(parameter.numel() for parameter in work.student.parameters())
    assert report.parameters == parameters
    saved = sum(module.parameters_before - module.parameters_after for module in report.modules)
    assert parameters + saved == sum(parameter.numel() for parameter in work.teacher.parameters())


@BUILDERS
@pytest.mark.parametrize("keep", [0.5, 0.25])
def test_both_forms_are_the_same_function(build: Build, keep: float, tmp_path: Path) -> None:
    narrow, _ = pruned(build(), tmp_path, keep=keep)
    kronecker, report = pruned(build(), tmp_path, keep=keep, form="kronecker")
    torch.testing.assert_close(logits(kronecker.student), logits(narrow.student), atol=1e-5, rtol=1e-5)
    plan = layout(kronecker.student)
    assert getattr(kronecker.student.config, plan.family.width_key) == WIDTH
    for block in plan.feed_forwards:
        layers = [kronecker.student.get_submodule(path) for path in (*block.expanding, block.down)]
        assert all(isinstance(layer, KroneckerLinear) and layer.terms == 1 for layer in layers)
        assert {(layer.shape.m2 * layer.shape.n2) for layer in layers} == {round(keep * WIDTH) * 16}
    assert all(0 < module.relative_error < 1 for module in report.modules)


@BUILDERS
def test_the_silent_half_of_the_kronecker_form_can_learn(build: Build, tmp_path: Path) -> None:
    work, _ = pruned(build(), tmp_path, form="kronecker")
    work.student(input_ids=some_ids()).logits.square().sum().backward()
    for block in layout(work.student).feed_forwards:
        mixing = work.student.get_submodule(block.up).left
        assert mixing.grad[0, 1].abs().max() > 0
        assert mixing[0, :, 0].tolist() == [1.0, 0.0]


@BUILDERS
def test_dead_neurons_go_and_nothing_else_changes(build: Build, tmp_path: Path) -> None:
    model = build()
    alive = torch.arange(WIDTH) % 2 == 0
    for block in layout(model).feed_forwards:
        weight_of(model.get_submodule(block.down))[:, ~alive] = 0.0
    work, report = pruned(model, tmp_path)
    torch.testing.assert_close(logits(work.student), logits(model), atol=1e-4, rtol=1e-4)
    for block in layout(model).feed_forwards:
        for path in block.expanding:
            assert torch.equal(weight_of(work.student.get_submodule(path)), weight_of(model.get_submodule(path))[alive])
    assert all(module.relative_error < 1e-3 for module in report.modules)


@BUILDERS
def test_twins_are_merged(build: Build, tmp_path: Path) -> None:
    model = build()
    for block in layout(model).feed_forwards:  # each hidden neuron twice: half of them can take over for the others
        for path in block.expanding:
            layer = model.get_submodule(path)
            weight_of(layer)[WIDTH // 2 :] = weight_of(layer)[: WIDTH // 2]
            bias = bias_of(layer)
            if bias is not None:
                bias.detach()[WIDTH // 2 :] = bias.detach()[: WIDTH // 2]
    work, _ = pruned(model, tmp_path, ridge=1e-9)
    torch.testing.assert_close(logits(work.student), logits(model), atol=1e-3, rtol=1e-3)


@BUILDERS
def test_the_error_is_that_of_what_leaves_the_block(build: Build, tmp_path: Path) -> None:
    statistic, dense = statistic_of(build(), tmp_path)
    if statistic.norm is not None:
        statistic.norm = torch.nn.Identity()  # compare the sums that enter the norm
        whole = Kept(torch.arange(WIDTH), statistic.weight, bias_of(statistic.adding), 0.0)
        dense = torch.cat(statistic.leaving(whole))
    nothing = Kept(torch.arange(0), statistic.weight[:, :0], None, 0.0)
    bypass = torch.cat(statistic.leaving(nothing))
    centered, kept = statistic.moments.centered, Surgeon(ridge=1e-6, rounds=8).solve(statistic.readout(), keep=10)
    missed, targets = (torch.cat(statistic.leaving(kept)) - dense).detach().double(), (dense - bypass).detach().double()
    if centered:
        targets = targets - targets.mean((0, 1))
        torch.testing.assert_close(missed.mean((0, 1)), torch.zeros(16, dtype=torch.float64), atol=1e-4, rtol=0)
    expected = (missed.square().sum() / targets.square().sum()).sqrt().item()
    assert kept.relative_error == pytest.approx(expected, rel=1e-3)


@BUILDERS
def test_the_choice_beats_chance(build: Build, tmp_path: Path) -> None:
    statistic, _ = statistic_of(build(), tmp_path)
    readout = statistic.readout()
    chosen = Surgeon(ridge=1e-6, rounds=12).solve(readout, keep=12)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        neurons = torch.randperm(WIDTH, generator=generator)[:12].sort().values
        weight = refit(readout.moment, readout.cross, kept=neurons)  # even when the random choice is fitted as well
        explained = (weight * readout.cross[:, neurons]).sum()
        error = (1 - explained / readout.energy).clamp_min(0).sqrt().item()
        assert chosen.relative_error < error


@pytest.mark.parametrize("build", [tiny_gpt2, tiny_bert])
def test_the_bias_is_solved_anew(build: Build, tmp_path: Path) -> None:
    work, _ = pruned(build(), tmp_path)
    for block in layout(work.student).feed_forwards:
        old, new = (bias_of(model.get_submodule(block.down)) for model in (work.teacher, work.student))
        assert old is not None and new is not None
        assert not torch.allclose(old, new, atol=1e-3)
    assert bias_of(tiny_llama().get_submodule("model.layers.0.mlp.down_proj")) is None


def test_a_llama_with_biases_is_fitted_with_them(tmp_path: Path) -> None:
    work, _ = pruned(tiny_llama(mlp_bias=True), tmp_path)
    kronecker, _ = pruned(tiny_llama(mlp_bias=True), tmp_path, form="kronecker")
    assert bias_of(work.student.get_submodule("model.layers.0.mlp.down_proj")) is not None
    torch.testing.assert_close(logits(kronecker.student), logits(work.student), atol=1e-5, rtol=1e-5)


def test_windows_are_as_long_as_the_model_takes(tmp_path: Path) -> None:
    work, _ = pruned(tiny_gpt2(), tmp_path, window=None)
    assert work.student.config.n_inner == WIDTH // 2


def test_a_second_round_prunes_the_rest(tmp_path: Path) -> None:
    work, _ = pruned(tiny_llama(), tmp_path)
    Prune(fit=CALIBRATION).run(work)
    assert work.student.config.intermediate_size == WIDTH // 4


def test_a_pruned_model_can_be_factored(tmp_path: Path) -> None:
    work, _ = pruned(tiny_llama(), tmp_path)
    expected = logits(work.student)
    Factorize(method={"name": "van_loan", "right": (2, 2), "terms": 4}).run(work)
    torch.testing.assert_close(logits(work.student), expected, atol=1e-5, rtol=1e-5)


@BUILDERS
def test_a_block_that_adds_nothing_is_pruned_too(build: Build, tmp_path: Path) -> None:
    model = build()
    silent = layout(model).feed_forwards[0]
    for path in (*silent.expanding, silent.down):
        weight_of(model.get_submodule(path)).zero_()
        bias = bias_of(model.get_submodule(path))
        if bias is not None:
            bias.detach().zero_()
    work, report = pruned(model, tmp_path)
    assert report.modules[0].relative_error == 0.0
    assert logits(work.student).isfinite().all()


def test_a_model_with_broken_weights_is_refused(tmp_path: Path) -> None:
    model = tiny_llama()
    weight_of(model.get_submodule("model.layers.1.mlp.up_proj"))[0, 0] = float("nan")
    with pytest.raises(KronpressError, match="not finite"):
        pruned(model, tmp_path)


def test_the_teacher_stays_as_it_was(tmp_path: Path) -> None:
    model = tiny_llama()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruned(model, tmp_path)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
