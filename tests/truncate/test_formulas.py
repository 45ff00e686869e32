"""The lists of the Short Study, and what holds of the formulas for any depth."""

from __future__ import annotations

import pytest
from torch import device
from transformers import GPT2Config, GPT2LMHeadModel

from kronpress.errors import KronpressError
from kronpress.truncate import CHOICES, keep_blocks
from kronpress.truncate.formulas import Formula, Listed
from tests.tiny import bench, tiny_llama

FORMULAS = {name: kind for name, kind in CHOICES.items() if issubclass(kind, Formula)}
PUBLISHED = {
    "alt": ("0 2 4 6 8 10", "0 4 8 12 16 20", "0 6 12 18 24 30", "0 8 16 24 32 40"),
    "distil": ("0 2 4 7 9 11", "0 4 8 13 17 21", "0 6 12 19 25 31", "0 8 16 25 33 41"),
    "3b3t": ("0 2 4 7 9 11", "0 4 8 15 19 23", "0 6 12 23 29 35", "0 8 16 31 39 47"),
    "6b": ("0 1 2 3 4 5", "0 2 4 6 8 10", "0 3 6 9 12 15", "0 4 8 12 16 20"),
    "6t": ("6 7 8 9 10 11", "13 15 17 19 21 23", "20 23 26 29 32 35", "27 31 35 39 43 47"),
    "3l": ("0 6 11", "0 12 23", "0 18 35", "0 24 47"),
}
PLACES = [
    (name, depth, blocks)
    for name, lists in PUBLISHED.items()
    for depth, blocks in zip((12, 24, 36, 48), lists, strict=True)
]


@pytest.mark.parametrize(("name", "depth", "blocks"), PLACES)
def test_the_published_lists(name: str, depth: int, blocks: str) -> None:
    expected = [int(block) for block in blocks.split()]
    assert FORMULAS[name].blocks(depth, len(expected)) == expected


@pytest.mark.parametrize("name", FORMULAS)
def test_any_depth_and_number_give_as_many_blocks_of_the_model_in_order(name: str) -> None:
    for depth in range(2, 50):
        for keep in range(1, depth):
            blocks = list(FORMULAS[name].blocks(depth, keep))
            assert blocks == sorted(set(blocks)) and len(blocks) == keep, (depth, keep)
            assert blocks[0] >= 0 and blocks[-1] < depth, (depth, keep)


@pytest.mark.parametrize(("keep", "parameters"), [(6, 81_912_576), (3, 60_648_960)])
def test_gpt2_has_the_published_sizes(keep: int, parameters: int) -> None:
    with device("meta"):
        model = GPT2LMHeadModel(GPT2Config())
    keep_blocks(model, FORMULAS["alt"].blocks(12, keep))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.config.n_layer == keep


@pytest.mark.parametrize(
    ("choice", "keep", "message"),
    [
        (FORMULAS["alt"](), None, "keep is missing; say how many of the 3"),
        (FORMULAS["6t"](), 3, "keep: 3 of 3 blocks leaves out none; choose at most 2"),
        (FORMULAS["3l"](), None, "keep: 3 of 3 blocks"),
        (Listed(blocks=(0, 3)), None, "the model has 3, numbered from 0 to 2"),
        (Listed(blocks=(1, 0)), None, "in ascending order"),
        (Listed(blocks=(0, 0)), None, "each once"),
        (Listed(blocks=()), None, "name at least one"),
        (Listed(blocks=(0, 1, 2)), None, "these are all 3 of the model"),
        (Listed(blocks=(0, 1)), 1, "keep: 1 beside a list of 2 blocks; leave keep out"),
    ],
)
def test_a_number_that_does_not_suit_is_refused(choice, keep, message, tmp_path) -> None:
    with pytest.raises(KronpressError, match=message):
        choice.check(bench(tiny_llama(), tmp_path), keep=keep)
