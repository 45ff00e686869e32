from __future__ import annotations

import re

import pytest
from transformers import Olmo2Config, Olmo2ForCausalLM

from kronpress.errors import KronpressError
from kronpress.families import select_sites
from tests.tiny import DEPTH, tiny_bert, tiny_gpt2, tiny_llama


def selected(pattern: str, *, skip_blocks: tuple[int, ...] = ()) -> list[str]:
    return [site.path for site in select_sites(tiny_llama(), pattern, skip_blocks=skip_blocks)]


@pytest.mark.parametrize(
    ("pattern", "per_block"),
    [
        ("up", 1),
        ("feed_forward", 3),
        ("attention", 4),
        ("all", 7),
        ("up, down", 2),
        ("*.mlp.*", 3),
        ("re:[qk]_proj$", 2),
    ],
)
def test_patterns_name_so_many_sites_in_each_block(pattern: str, per_block: int) -> None:
    assert len(selected(pattern)) == per_block * DEPTH
    assert len(selected(pattern, skip_blocks=(0, 2))) == per_block


def test_sites_come_in_the_order_of_the_computation_and_once() -> None:
    paths = selected("head,up,feed_forward,embedding")
    assert (paths[0], paths[-1]) == ("model.embed_tokens", "lm_head")
    assert paths[1:4] == [f"model.layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")]
    assert len(paths) == len(set(paths)) == 3 * DEPTH + 2


def test_the_group_all_is_that_of_the_blocks() -> None:
    assert not {"model.embed_tokens", "lm_head"} & set(selected("all"))


def test_fused_attention_is_part_of_the_attention() -> None:
    paths = [site.path for site in select_sites(tiny_gpt2(), "attention")]
    assert paths[:2] == ["transformer.h.0.attn.c_attn", "transformer.h.0.attn.c_proj"]


def test_an_encoder_has_its_roles_too() -> None:
    paths = [site.path for site in select_sites(tiny_bert(), "output,down", skip_blocks=(1, 2))]
    assert paths == ["bert.encoder.layer.0.attention.output.dense", "bert.encoder.layer.0.output.dense"]


@pytest.mark.parametrize("pattern", ["attention", "up, query", "all", "all,embedding"])
def test_only_feed_forward_blocks_are_taken_where_no_more_is_known(pattern: str) -> None:
    sizes = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2}
    model = Olmo2ForCausalLM(Olmo2Config(**sizes, num_attention_heads=2, pad_token_id=None))
    assert len(select_sites(model, "feed_forward")) == 6
    with pytest.raises(KronpressError, match="of olmo2 and olmo3 models the feed-forward blocks alone can be"):
        select_sites(model, pattern)


@pytest.mark.parametrize("pattern", ["uup", "*.feed.*", "re:^mlp", ""])
def test_a_pattern_that_matches_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(KronpressError, match=f"the pattern '{re.escape(pattern)}' matches no module .* use a role"):
        selected(pattern)


def test_a_broken_expression_is_refused() -> None:
    with pytest.raises(KronpressError, match=r"'re:\(' is not a regular expression"):
        selected("re:(")
