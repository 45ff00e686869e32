"""What every initialization on the shelf must satisfy: exact where it can be, and honest about its error."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch

from kronpress.checkpoint import structured_layers
from kronpress.errors import KronpressError
from kronpress.factorize import INITIALIZATIONS, Factorize, MatrixInitialization, Request
from kronpress.layers import weight_of
from kronpress.validation import parse
from tests.tiny import bench, logits, tiny_gpt2, tiny_llama

BY_MATRIX = [name for name, method in INITIALIZATIONS.items() if issubclass(method, MatrixInitialization)]
FOR_TABLES = ["tensor_train_rows"]  # which make token tables and no linear layers
NO_DEFAULT: dict[str, dict[str, Any]] = {"tensor_train": {"rank": 2}, "tensor_train_rows": {"rank": 1}}
REQUESTS: dict[str, list[dict[str, Any]]] = {
    "van_loan": [{"right": (2, 2), "terms": 2}, {"left": (4, 8)}, {"right": (1, 2), "scales": True}],
    "van_loan_normalized": [{"right": (2, 2), "terms": 2}, {"right": (1, 2), "scales": True}],
    "pruning": [{"right": (1, 2)}, {"right": (2, 1), "scales": True}],
    "svd": [{"ratio": 0.5}, {"ratio": 0.9}],
    "tensor_train": [{}, {"init": {"rank": 3, "redundant": True}}, {"init": {"rank": 1, "bias": False}}],
    "tensor_train_rows": [{}, {"init": {"rank": 1, "modes": (4, 4)}}],
}
CASES = [(name, request) for name, requests in REQUESTS.items() for request in requests]


def step(name: str, request: dict[str, Any], *, sites: str = "all") -> Factorize:
    """The step of a request, whose `init` holds the fields of the initialization."""
    init = {"name": name} | NO_DEFAULT.get(name, {}) | request.get("init", {})
    return Factorize(**(request | {"init": init, "sites": "embedding" if name in FOR_TABLES else sites}))


def own_structure(name: str, rows: int, columns: int) -> torch.Tensor:
    """A matrix that the initialization represents exactly with `right: (1, 2)`, half the parameters, or its rank."""
    generator = torch.Generator().manual_seed(0)
    if name == "svd":
        return torch.randn(rows, 2, generator=generator) @ torch.randn(2, columns, generator=generator)
    if name == "tensor_train":
        shapes = [(2, 2), (2, 2), (2, 2), (rows // 8, columns // 8)]
        return sum(reduce(torch.kron, [torch.randn(*shape, generator=generator) for shape in shapes]) for _ in range(2))
    if name == "tensor_train_rows":
        parts = [torch.randn(rows, mode, generator=generator) for mode in (2, 2, columns // 4)]
        return torch.einsum("ra,rb,rc->rabc", *parts).flatten(1)
    row = torch.tensor([[1.0, 0.1]])
    return torch.kron(torch.randn(rows, columns // 2, generator=generator), row)


def test_every_initialization_by_matrix_has_requests() -> None:
    assert set(REQUESTS) == set(BY_MATRIX)


@pytest.mark.parametrize(("name", "request_"), CASES, ids=str)
@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2])
def test_the_error_is_that_of_the_new_weight(build: Any, name: str, request_: dict[str, Any], tmp_path: Path) -> None:
    work = bench(build(), tmp_path)
    report = step(name, request_).run(work)
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
    path = "model.embed_tokens" if name in FOR_TABLES else "model.layers.1.mlp.up_proj"
    weight = weight_of(model.get_submodule(path))
    weight.copy_(own_structure(name, *weight.shape))
    work = bench(model, tmp_path)
    report = step(name, {"right": (1, 2)} if "right" in INITIALIZATIONS[name].reads else {}, sites=path).run(work)
    assert report["modules"][0]["relative_error"] < 1e-5
    torch.testing.assert_close(logits(work.student), logits(model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", BY_MATRIX)
def test_it_touches_only_what_is_asked_for_and_never_the_teacher(name: str, tmp_path: Path) -> None:
    model = tiny_gpt2()
    expected = logits(model)
    work = bench(model, tmp_path)
    blocks = {} if name in FOR_TABLES else {"skip_blocks": (0, 2)}
    step(name, REQUESTS[name][0] | blocks, sites="up").run(work)
    assert torch.equal(logits(model), expected)
    changed = {path for path, module in work.student.named_modules() if hasattr(module, "to_dense")}
    assert changed == ({"transformer.wte", "lm_head"} if name in FOR_TABLES else {"transformer.h.1.mlp.c_fc"})


@pytest.mark.parametrize("name", [name for name in BY_MATRIX if name not in FOR_TABLES])
def test_the_bias_is_kept(name: str, tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    step(name, REQUESTS[name][0]).run(work)
    for path, layer in structured_layers(work.student).items():
        bias = work.teacher.get_submodule(path).bias
        assert torch.equal(layer.to_dense().bias, bias)
        assert all(parameter.data_ptr() != bias.data_ptr() for parameter in layer.parameters())


OTHERWISE: dict[str, Any] = {  # another value than the default, for each field beside those that choose sites
    "left": (24, 4),
    "right": (1, 4),
    "terms": 2,
    "scales": True,
    "levels": 2,
    "permute": "all",
    "head": "dense",
    "ratio": 0.75,
}
SHAPED: dict[str, Any] = {"right": (1, 2)}


def test_every_field_of_a_request_has_another_value() -> None:
    assert set(OTHERWISE) == set(Request.model_fields) - {"sites", "blocks", "skip_blocks"}


@pytest.mark.parametrize("field", OTHERWISE)
@pytest.mark.parametrize("name", list(INITIALIZATIONS))
def test_a_field_is_refused_or_changes_the_model(name: str, field: str, tmp_path: Path) -> None:
    reads = INITIALIZATIONS[name].reads
    init = {"name": name} | NO_DEFAULT.get(name, {}) | ({"tokens": 64, "window": 32} if "whitened" in name else {})
    if field not in reads:
        with pytest.raises(KronpressError, match=rf"^s: {field}: .* would not be read; init: {name} takes .* out, or"):
            parse(Factorize, {"init": init, field: OTHERWISE[field]}, place="s")
        return
    sites = "embedding" if "head" in reads else "feed_forward"
    base = {"init": init, "sites": sites} | (SHAPED if "right" in reads else {})
    changed = base | {field: OTHERWISE[field]}
    if field == "left":
        changed |= {"right": None} | ({"left": (264, 4)} if sites == "embedding" else {})
    if (name, field) == ("pruning", "terms"):
        with pytest.raises(KronpressError, match="pruning takes one term"):
            parse(Factorize, changed, place="s").check(bench(tiny_llama(), tmp_path))
        return
    found = []
    for fields in (base, changed):
        work = bench(tiny_llama(), tmp_path)
        made = parse(Factorize, fields, place="s")
        made.check(work)
        made.run(work)
        found.append({key: value.shape for key, value in work.student.state_dict().items()})
    assert found[0] != found[1]


@pytest.mark.parametrize("name", list(INITIALIZATIONS))
def test_its_repr_reads_like_the_recipe(name: str) -> None:
    made = step(name, {})
    assert made.init.kind == name
    assert step(name, {"init": made.init.model_dump()}) == made
    assert repr(made.init).startswith(type(made.init).__name__ + "(")
