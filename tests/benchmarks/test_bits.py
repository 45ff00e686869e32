from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from benchmarks import bits
from kronpress.layers import Grid, quantized_tensors
from tests.tiny import some_ids, tiny_bert, tiny_llama

MODELS = {"tied": tiny_llama(), "untied": tiny_llama(tied=False), "encoder": tiny_bert().bert}


@pytest.mark.parametrize("name", MODELS)
def test_all_but_a_head_of_its_own_is_on_a_grid(name: str) -> None:
    model = MODELS[name].eval()
    student = bits.quantized(model, Grid(levels="int8"))
    dense, left = (dense_layers(some) for some in (model, student))
    assert left == (1 if name == "untied" else 0)
    in_place_of = dense - left - (1 if name == "tied" else 0)
    assert len(list(quantized_tensors(student))) == in_place_of + 1  # the table, which a tied head shares
    with torch.no_grad():
        before, after = (some(input_ids=some_ids())[0] for some in (model, student))
    assert 0 < (after - before).norm() < 0.1 * before.norm()


def dense_layers(model: PreTrainedModel) -> int:
    return sum(type(module) is nn.Linear for module in model.modules())
