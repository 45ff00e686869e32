"""The size of the vocabulary, and what other tools ask of a token table."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import kronpress
from kronpress import KronpressError
from kronpress.checkpoint import save, structured_layers
from kronpress.factorize import Factorize
from kronpress.prune import Prune
from tests.tiny import bench, factorized, logits, tiny_bert, tiny_gpt2, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SQUARES: dict[str, Any] = {"name": "kronecker", "right": (2, 2)}
FORMS: dict[str, dict[str, Any]] = {
    "tied": {"form": SQUARES},
    "untied": {"form": SQUARES, "head": "untied"},
    "dense head": {"form": SQUARES, "head": "dense"},
    "nested": {"form": SQUARES | {"levels": 2}},
    "grouped": {
        "form": {"name": "grouped", "groups": [{"tokens": 20, "terms": 2}], "right": (1, 4)},
        "fit": "frequency",
    },
    "rows of trains": {"form": {"name": "tensor_train_rows", "rank": 2}},
}


def opened(model: PreTrainedModel, folder: Path, **fields: Any) -> PreTrainedModel:
    work = bench(model, folder)
    Factorize(**({"sites": "embedding"} | fields)).run(work)
    return kronpress.load(save(work.student, folder / "checkpoint"))


def assert_refuses(model: PreTrainedModel, size: int | None, **options: Any) -> None:
    """Nothing may have changed after the refusal."""
    config, before = copy.deepcopy(model.config.to_dict()), copy.deepcopy(model.state_dict())
    expected = logits(model)
    with pytest.raises(
        KronpressError, match=r"the vocabulary cannot go from 264 tokens to 2\d\d: .* `kronpress export"
    ):
        model.resize_token_embeddings(size, **options)
    assert model.config.to_dict() == config
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("form", list(FORMS))
def test_a_factored_table_refuses_another_size_and_stays_as_it_is(tmp_path: Path, form: str) -> None:
    model = opened(tiny_llama(), tmp_path, **FORMS[form])
    assert_refuses(model, 270)
    assert_refuses(model, 200)
    assert_refuses(model, None, pad_to_multiple_of=10)
    for same in ({}, {"new_num_tokens": 264}, {"new_num_tokens": 261, "pad_to_multiple_of": 8}):
        assert model.resize_token_embeddings(**same) is model.get_input_embeddings()


@pytest.mark.parametrize("build", [tiny_gpt2, tiny_bert])
def test_other_families_refuse_too(tmp_path: Path, build: Any) -> None:
    assert_refuses(kronpress.load(save(factorized(build(), tmp_path), tmp_path / "checkpoint")), 270)


def test_a_factored_head_over_a_dense_table_refuses_before_the_table_is_changed(tmp_path: Path) -> None:
    model = opened(tiny_llama(tied=False), tmp_path, form=SQUARES, sites="head")
    assert isinstance(model.get_input_embeddings(), torch.nn.Embedding)
    assert_refuses(model, 270)


@pytest.mark.parametrize("tied", [True, False])
def test_a_dense_table_beside_factors_is_resized_and_opens_again(tmp_path: Path, tied: bool) -> None:
    model = opened(tiny_llama(tied=tied), tmp_path, form=SQUARES, sites="all")
    expected = logits(model)
    model.resize_token_embeddings(272, mean_resizing=False)
    assert model.config.vocab_size == 272
    torch.testing.assert_close(logits(model)[..., :264], expected)
    again = kronpress.load(save(model, tmp_path / "again"))
    assert structured_layers(again)
    assert torch.equal(logits(again), logits(model))


def test_a_plain_narrow_model_is_resized_as_usual(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    Prune(keep=0.5, fit={"tokens": 2048, "window": 64}).run(work)
    model = kronpress.load(save(work.student, tmp_path / "checkpoint"))
    model.resize_token_embeddings(272, mean_resizing=False)
    again = kronpress.load(save(model, tmp_path / "again"))
    assert torch.equal(logits(again), logits(model))


def test_the_weight_of_a_factored_table_is_explained(checkpoint: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    table = model.get_input_embeddings()
    with pytest.raises(KronpressError, match=r"a KroneckerEmbedding computes with factors .* `to_dense\(\)`"):
        _ = table.weight
    with pytest.raises(AttributeError, match="has no attribute 'weights'"):
        _ = table.weights
    assert not hasattr(table, "weight")
    assert (table.num_embeddings, table.embedding_dim) == (264, 16)
    model.tie_weights()
    assert model.lm_head.table is table
    assert model.get_memory_footprint() == sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    model.enable_input_require_grads()
    assert model.num_parameters() == sum(value.numel() for value in model.parameters())
