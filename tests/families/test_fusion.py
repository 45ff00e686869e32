from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.families import Fusion, Site, family_of, layout, select_sites
from kronpress.layers import weight_of
from tests.tiny import DEPTH, DIM, VOCABULARY, WIDTH

SIZES = {"vocab_size": VOCABULARY, "hidden_size": DIM, "num_hidden_layers": DEPTH, "num_attention_heads": 4}
NEOX = SIZES | {"intermediate_size": WIDTH}
PHI3 = NEOX | {"num_key_value_heads": 2, "pad_token_id": None}
OPT = SIZES | {"ffn_dim": WIDTH}


def build(model_type: str, **fields: object) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **fields))
    return model.eval()


def fused(model: PreTrainedModel) -> tuple[Site, Tensor]:
    site = select_sites(model, "qkv")[0]
    return site, weight_of(model.get_submodule(site.path))


@pytest.mark.parametrize(
    "fusion",
    [
        Fusion(("a",), (1,)),
        Fusion(("a", "b", "c"), (1, 1, 1)),
        Fusion(("a", "b", "c"), (4, 2, 2)),
        Fusion(("a", "b", "c"), (1, 1, 1), runs=4),
        Fusion(("a", "b"), (1, 3), runs=2),
    ],
)
def test_what_is_split_is_joined_again(fusion: Fusion) -> None:
    for tensor in (torch.randn(48, 3), torch.randn(48), torch.arange(96)):
        parts = fusion.split(tensor)
        assert torch.equal(fusion.join(parts), tensor)
        assert [len(part) * sum(fusion.sizes) for part in parts] == [len(tensor) * size for size in fusion.sizes]
        narrow = fusion.join([part[: len(part) // 2] for part in parts])
        assert [part.tolist() for part in fusion.split(narrow)] == [part[: len(part) // 2].tolist() for part in parts]


def test_shared_key_heads_have_fewer_rows_than_the_queries() -> None:
    site, weight = fused(build("phi3", **PHI3))
    assert site.shares == ("query", "key", "value")
    assert [len(part) for part in site.split(weight)] == [16, 8, 8]
    assert torch.equal(torch.cat(site.split(weight)), weight)


def test_the_heads_of_an_interleaved_module_are_put_together() -> None:
    site, weight = fused(build("gpt_neox", **NEOX))
    query, key, value = site.split(weight)
    head = DIM // 4
    for number in range(4):
        rows = weight[3 * head * number : 3 * head * (number + 1)]
        mine = slice(head * number, head * (number + 1))
        assert torch.equal(torch.cat([query[mine], key[mine], value[mine]]), rows)


def test_a_fused_gate_is_part_of_the_feed_forward_block() -> None:
    model = build("phi3", **PHI3)
    paths = [site.path.rpartition(".")[2] for site in select_sites(model, "feed_forward", skip_blocks=(0, 1))]
    assert paths == ["gate_up_proj", "down_proj"]
    block = layout(model).feed_forwards[0]
    assert block.expanding == (block.up,) == (block.gate,)
    weight, kept = weight_of(model.get_submodule(block.up)), torch.tensor([0, 5])
    gate, up = weight.chunk(2)
    assert torch.equal(block.narrow(weight, kept), torch.cat([gate[kept], up[kept]]))


def test_a_configuration_that_is_laid_out_in_another_way_is_refused() -> None:
    model = build("opt", **OPT, do_layer_norm_before=False)
    with pytest.raises(KronpressError, match=r"has do_layer_norm_before: False, and opt models are supported with .*"):
        family_of(model)
    assert family_of(build("opt", **OPT)).width_key == "ffn_dim"
