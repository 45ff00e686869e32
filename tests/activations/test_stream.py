from __future__ import annotations

import pytest
import torch

from kronpress.activations import BlockStream, Moments
from kronpress.activations import stream as calibrate
from kronpress.precision import NumberFormat, computing_in
from tests.tiny import VOCABULARY, tiny_llama


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gathered(inputs: torch.Tensor, targets: torch.Tensor, *, centered: bool, batch: int = 30) -> Moments:
    moments = Moments(inputs.shape[1], targets.shape[1], centered=centered, device=inputs.device)
    for h, t in zip(inputs.split(batch), targets.split(batch), strict=True):
        moments.add(h, t)
    return moments


@pytest.mark.parametrize("width", [1, 3, 8, 37])
@pytest.mark.parametrize("centered", [False, True])
def test_moments_are_those_of_the_whole_text(width: int, centered: bool) -> None:
    inputs, targets = random(100, width) + 1, random(100, 4, seed=1) - 2
    moments = gathered(inputs, targets, centered=centered)
    h, t = (each.double() - centered * each.double().mean(0) for each in (inputs, targets))
    second, cross = moments.normal_equations()
    torch.testing.assert_close(second, h.T @ h / 100, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cross, t.T @ h / 100, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(second, second.T, atol=0, rtol=0)
    assert moments.target_energy() == pytest.approx((t.square().sum() / 100).item(), rel=1e-5)


def test_the_intercept_is_that_of_a_fit_with_a_column_of_ones() -> None:
    inputs, targets = random(100, 5) + 1, random(100, 3, seed=1)
    moments, kept = gathered(inputs, targets, centered=True), torch.tensor([0, 2, 3])
    second, cross = moments.normal_equations()
    weight = torch.linalg.solve(second[kept][:, kept], cross[:, kept].T).T
    design = torch.cat([inputs[:, kept], torch.ones(100, 1)], dim=1)
    solution = torch.linalg.lstsq(design.double(), targets.double()).solution
    torch.testing.assert_close(weight.T, solution[:3], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(moments.intercept(weight, kept=kept), solution[3], atol=1e-5, rtol=1e-4)


def test_autocast_does_not_coarsen_them() -> None:
    inputs, targets = random(64, 6), random(64, 2, seed=1)
    expected = gathered(inputs, targets, centered=False).normal_equations()
    with torch.autocast("cpu", torch.bfloat16):
        found = gathered(inputs, targets, centered=False).normal_equations()
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("windows", [1, 6, 7])
def test_batches_do_not_change_the_stream(windows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = tiny_llama(), torch.arange(windows * 8).view(windows, 8) % VOCABULARY
    whole = BlockStream.begin(model, ids)
    monkeypatch.setattr(calibrate, "_BATCH_TOKENS", 16)
    pieces = BlockStream.begin(model, ids)
    assert len(whole.hidden) == 1
    assert len({batch.shape for batch in pieces.hidden}) == 1
    whole.advance(model, block=0)
    pieces.advance(model, block=0)
    torch.testing.assert_close(torch.cat(pieces.hidden), torch.cat(whole.hidden))


def test_no_cast_weights_stay_in_memory_while_the_blocks_are_called() -> None:
    model, kept = tiny_llama(), []
    for block in model.model.layers:
        block.register_forward_hook(lambda *_: kept.append(torch.is_autocast_cache_enabled()))
    with computing_in(NumberFormat("bf16", "for the test")):
        BlockStream.begin(model, torch.arange(16).view(2, 8))
    assert kept == [False] * len(model.model.layers)


def test_no_hook_stays_behind() -> None:
    model = tiny_llama()
    BlockStream.begin(model, torch.arange(16).view(2, 8))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_bfloat16_neurons_are_multiplied_without_rounding_the_sums() -> None:
    neurons = torch.randn(700, 24, dtype=torch.bfloat16)
    moments = Moments(24, 3, centered=False, device=torch.device("cpu"))
    moments.add(neurons, torch.randn(700, 3))
    second, _ = moments.normal_equations()
    wanted = neurons.double().T @ neurons.double() / 700
    assert (second - wanted).abs().max() <= 1e-5
