from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from kronpress.factorize import Factorize, Target
from kronpress.factorize.fits import Channels, Normalized
from kronpress.factorize.forms import Kronecker, KroneckerProblem, Metric, Solution
from kronpress.families import layout, replace_module, select_sites
from kronpress.layers import KroneckerLinearSpec, weight_of
from kronpress.linalg import KroneckerShape
from tests.tiny import bench, tiny_llama


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


PUBLISHED = [  # Krony-PT's GPT-2 models: left factor of the expanding matrix as out × in, terms, parameters
    ((64, 32), 1, 67_893_504),
    ((1024, 256), 2, 80_400_048),
    ((768, 768), 1, 81_972_576),
    ((1536, 384), 1, 81_972_576),
    ((1536, 768), 1, 96_128_304),
    ((3072, 384), 1, 96_128_304),
]


@pytest.mark.parametrize(("left", "terms", "parameters"), PUBLISHED, ids=str)
def test_parameters_of_the_published_models(left: tuple[int, int], terms: int, parameters: int) -> None:
    form = Kronecker(left=left, terms=terms)
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config())
    assert count(model) == 124_439_808
    for site in select_sites(model, "feed_forward"):
        shape = form.shape(Target.of(site, model.get_submodule(site.path)))
        pairs = {"left": (shape.m1, shape.n1), "right": (shape.m2, shape.n2)}
        replace_module(model, site.path, module=KroneckerLinearSpec(**pairs, terms=terms).build(device="meta"))
    assert count(model) == parameters


@pytest.mark.slow
@pytest.mark.parametrize(("left", "terms", "parameters"), PUBLISHED, ids=str)
def test_gpt2_is_factored_to_the_published_size(
    left: tuple[int, int], terms: int, parameters: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    work = bench(GPT2LMHeadModel(GPT2Config()), tmp_path)
    record = Factorize(form={"name": "kronecker", "left": left, "terms": terms}).run(work)
    assert record.parameters == count(work.student) == parameters
    assert len(record.modules) == 24


def test_the_down_projection_gets_the_swapped_shapes() -> None:
    plan = layout(tiny_llama())
    form = Kronecker(right=(1, 2))
    shapes = {
        site.role: form.shape(Target(site.path, site.role, (8, 8)))
        for site in plan.sites
        if site.role in ("up", "down")
    }
    assert shapes["up"] == KroneckerShape(m1=8, n1=4, m2=1, n2=2)
    assert shapes["down"] == KroneckerShape(m1=4, n1=8, m2=2, n2=1)


def test_normalized_has_the_norm_of_the_weight_and_twice_one_minus_rho_as_error() -> None:
    weight, shape = random(12, 20), KroneckerShape(m1=4, n1=10, m2=3, n2=2)
    problem = KroneckerProblem(shape, 2)
    nearest = problem.nearest(weight, Metric())
    solution = Normalized().solve(weight, problem, Metric())
    value, scale = solution.value, solution.scale
    normalized = scale * value.to_dense()
    rho = (nearest.to_dense().norm() / weight.norm()).item()
    torch.testing.assert_close(normalized.norm(), weight.norm())
    torch.testing.assert_close(normalized, nearest.to_dense() / rho)
    relative = ((weight - normalized).norm() / weight.norm()).item()
    assert relative**2 == pytest.approx(2 - 2 * rho, rel=1e-9)
    assert value.error == pytest.approx(relative * weight.norm().item(), rel=1e-9)


@pytest.mark.parametrize("scales", [True, False])
def test_normalized_puts_the_factor_into_the_scales_if_there_are_any(scales: bool, tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    Factorize(method={"name": "van_loan_normalized", "right": (1, 2), "scales": scales}, sites="up").run(work)
    layer = work.student.get_submodule("model.layers.0.mlp.up_proj")
    weight = weight_of(work.teacher.get_submodule("model.layers.0.mlp.up_proj"))
    torch.testing.assert_close(layer.to_dense().weight.norm(), weight.norm())
    assert (layer.scales is not None) is scales
    if scales:
        assert layer.scales.item() > 1


def test_normalized_takes_a_zero_matrix() -> None:
    solution = Normalized().solve(torch.zeros(4, 4), KroneckerProblem(KroneckerShape(2, 2, 2, 2), 1), Metric())
    assert (solution.value.error, solution.scale) == (0.0, 1.0)


def chosen(fit: Channels, weight: torch.Tensor, shape: KroneckerShape) -> torch.Tensor:
    solution: Solution = fit.solve(weight, KroneckerProblem(shape, 1), Metric())
    dense: torch.Tensor = solution.value.to_dense()
    return dense


@pytest.mark.parametrize("epsilon", [0.1, 0.0])
def test_pruning_keeps_every_other_channel_and_copies_it_faintly(epsilon: float) -> None:
    weight, fit = random(6, 8), Channels(epsilon=epsilon)
    columns = chosen(fit, weight, KroneckerShape(m1=6, n1=4, m2=1, n2=2))
    assert torch.equal(columns[:, ::2], weight[:, ::2])
    torch.testing.assert_close(columns[:, 1::2], epsilon * weight[:, ::2])
    rows = chosen(fit, weight, KroneckerShape(m1=3, n1=8, m2=2, n2=1))
    assert torch.equal(rows[::2], weight[::2])
    torch.testing.assert_close(rows[1::2], epsilon * weight[::2])


def test_pruning_by_three_keeps_every_third_channel() -> None:
    weight = random(4, 9)
    found = chosen(Channels(), weight, KroneckerShape(m1=4, n1=3, m2=1, n2=3))
    assert torch.equal(found[:, ::3], weight[:, ::3])
    torch.testing.assert_close(found[:, 2::3], 0.1 * weight[:, ::3])


def test_what_a_factorization_computes_is_its_own_tensor(tmp_path: Path) -> None:
    work: Any = bench(tiny_llama(), tmp_path)
    Factorize(method={"name": "pruning", "right": (1, 2)}).run(work)
    with torch.no_grad():
        for parameter in work.student.parameters():
            parameter.zero_()
    assert all(weight_of(work.teacher.get_submodule(site.path)).any() for site in layout(work.teacher).sites)
