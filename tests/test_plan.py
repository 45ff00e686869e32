from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kronpress.checkpoint import save
from kronpress.errors import KronpressError
from kronpress.layers import (
    DenseEmbeddingSpec,
    DenseLinearSpec,
    FactoredHeadSpec,
    KroneckerLinearSpec,
    structured_layers,
)
from kronpress.plan import Plan
from tests.tiny import factorized, tiny_bert, tiny_gpt2, tiny_llama

UP = "model.layers.0.mlp.up_proj"


@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2, tiny_bert])
def test_the_plan_of_a_model_is_what_its_checkpoint_says(build: Any, tmp_path: Path) -> None:
    model = factorized(build(), tmp_path)
    plan = Plan.of(model)
    assert plan.modules == {path: layer.spec for path, layer in structured_layers(model).items()}
    config = json.loads((save(model, tmp_path / "saved") / "config.json").read_text())
    assert Plan.parse({"modules": config["quantization_config"]["modules"]}) == plan
    assert model.config.quantization_config.plan == plan


def test_a_plan_is_written_and_read(tmp_path: Path) -> None:
    whole = Plan.of(factorized(tiny_gpt2(), tmp_path))
    plan = Plan(modules=whole.modules | {"lm_head": DenseLinearSpec(in_features=16, out_features=264, bias=False)})
    plan = plan.model_copy(update={"blocks": (0, 2), "widths": (8, 12)})
    assert Plan.from_yaml(plan.to_yaml()) == plan
    assert Plan.parse(json.loads(json.dumps(plan.to_json()))) == plan
    assert Plan.from_yaml(json.dumps(plan.to_json())) == plan


def test_a_plan_prints_as_a_recipe_reads() -> None:
    plan = Plan(modules={UP: KroneckerLinearSpec(left=(12, 8), right=(2, 2), bias=False)}, blocks=(0, 1))
    assert repr(plan) == (
        f"Plan(modules={{'{UP}': KroneckerLinearSpec(left=(12, 8), right=(2, 2), bias=False)}}, blocks=(0, 1))"
    )
    assert eval(repr(plan), {"Plan": Plan, "KroneckerLinearSpec": KroneckerLinearSpec}) == plan
    assert repr(Plan()) == "Plan()"


REFUSED = [
    (None, r"the plan is None; give a mapping"),
    ({"modules": ["x"]}, r"the plan is .*give a mapping"),
    ({"module": {}}, "unknown key 'module': did you mean 'modules'"),
    ({"modules": {UP: {"kind": "kroneker_linear"}}}, rf"modules\['{UP}'\]: unknown layer kind 'kroneker_linear'"),
    ({"modules": {UP: {"kind": "kronecker_linear", "left": [1, 2]}}}, "the field 'right' is missing; correct the plan"),
    ({"blocks": [1, 0]}, r"blocks: \[1, 0\] must ascend"),
    ({"blocks": []}, "blocks is"),
    ({"widths": 0}, "widths is 0"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=str)
def test_what_is_no_plan_is_refused(value: Any, message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        Plan.parse(value)


def test_dense_layers_can_be_named() -> None:
    table = {"kind": "dense_embedding", "num_embeddings": 9, "embedding_dim": 4, "padding_idx": 3}
    plan = Plan.parse({"modules": {"model.embed_tokens": table}})
    assert plan.modules["model.embed_tokens"] == DenseEmbeddingSpec(num_embeddings=9, embedding_dim=4, padding_idx=3)
    assert plan.modules["model.embed_tokens"].build().padding_idx == 3
    with pytest.raises(KronpressError, match=r"'dense_embedding' as a kind does not match this place; choose one of"):
        Plan.parse({"modules": {"lm_head": {"kind": FactoredHeadSpec.kind, "table": table}}})
