"""What every initialization on the shelf must satisfy: exact where it can be, and honest about its error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kronpress.factorize import INITIALIZATIONS, Factorize, MatrixInitialization
from kronpress.layers import linear, weight_of
from tests.tiny import bench, logits, tiny_gpt2, tiny_llama

BY_MATRIX = [name for name, method in INITIALIZATIONS.items() if issubclass(method, MatrixInitialization)]
REQUESTS: dict[str, list[dict[str, Any]]] = {
    "van_loan": [{"right": (2, 2), "terms": 2}, {"left": (4, 8)}, {"right": (1, 2), "scales": True}],
    "van_loan_normalized": [{"right": (2, 2), "terms": 2}, {"right": (1, 2), "scales": True}],
    "pruning": [{"right": (1, 2)}, {"right": (2, 1), "scales": True}],
    "svd": [{"ratio": 0.5}, {"ratio": 0.9}],
}
CASES = [(name, request) for name, requests in REQUESTS.items() for request in requests]


def own_structure(name: str, rows: int, columns: int) -> torch.Tensor:
    """A matrix that the initialization represents exactly with `right: (1, 2)` or half the parameters."""
    generator = torch.Generator().manual_seed(0)
    if name == "svd":
        return torch.randn(rows, 2, generator=generator) @ torch.randn(2, columns, generator=generator)
    row = torch.tensor([[1.0, 0.1]])
    return torch.kron(torch.randn(rows, columns // 2, generator=generator), row)


def test_every_initialization_by_matrix_has_requests() -> None:
    assert set(REQUESTS) == set(BY_MATRIX)


@pytest.mark.parametrize(("name", "request_"), CASES, ids=str)
@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2])
def test_the_error_is_that_of_the_new_weight(build: Any, name: str, request_: dict[str, Any], tmp_path: Path) -> None:
    work = bench(build(), tmp_path)
    report = Factorize(init=name, sites="all", **request_).run(work)
    for module in report["modules"]:
        before, after = (weight_of(model.get_submodule(module["path"])) if model is work.teacher
                         else weight_of(model.get_submodule(module["path"]).to_dense())
                         for model in (work.teacher, work.student))  # fmt: skip
        error = ((before - after).norm() / before.norm()).item()
        assert module["relative_error"] == pytest.approx(error, rel=1e-4, abs=1e-6)
        assert 0 < module["parameters_after"] < module["parameters_before"]


@pytest.mark.parametrize("name", BY_MATRIX)
def test_it_is_exact_on_matrices_of_its_own_structure(name: str, tmp_path: Path) -> None:
    model = tiny_llama()
    path = "model.layers.1.mlp.up_proj"
    weight = own_structure(name, *weight_of(model.get_submodule(path)).shape)
    model.get_submodule("model.layers.1.mlp").up_proj = linear(weight)
    work = bench(model, tmp_path)
    request = {} if name == "svd" else {"right": (1, 2)}
    report = Factorize(init=name, sites=path, **request).run(work)
    assert report["modules"][0]["relative_error"] < 1e-5
    torch.testing.assert_close(logits(work.student), logits(model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", BY_MATRIX)
def test_it_touches_only_what_is_asked_for_and_never_the_teacher(name: str, tmp_path: Path) -> None:
    model = tiny_gpt2()
    expected = logits(model)
    work = bench(model, tmp_path)
    Factorize(init=name, sites="up", skip_blocks=(0, 2), **REQUESTS[name][0]).run(work)
    assert torch.equal(logits(model), expected)
    changed = {path for path, module in work.student.named_modules() if hasattr(module, "to_dense")}
    assert changed == {"transformer.h.1.mlp.c_fc"}


@pytest.mark.parametrize("name", BY_MATRIX)
def test_the_bias_is_kept(name: str, tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    Factorize(init=name, sites="all", **REQUESTS[name][0]).run(work)
    for path, module in work.student.named_modules():
        if hasattr(module, "to_dense"):
            bias = work.teacher.get_submodule(path).bias
            assert isinstance(module.bias, nn.Parameter)
            assert torch.equal(module.bias, bias)
            assert module.bias is not bias


@pytest.mark.parametrize("name", list(INITIALIZATIONS))
def test_its_repr_reads_like_the_recipe(name: str) -> None:
    step = Factorize(init=name)
    assert step.init.kind == name
    assert Factorize(init={"name": name, **step.init.model_dump()}) == step
    assert repr(step.init).startswith(type(step.init).__name__ + "(")
