"""Requests that can not be met, in the words a user sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.validation import parse
from tests.tiny import bench, tiny_llama


def run(folder: Path, *steps: dict[str, Any]) -> None:
    work = bench(tiny_llama(), folder)
    for fields in steps:
        found = parse(Factorize, fields, place="steps.0 (factorize)")
        found.check(work)
        found.run(work)


VAN_LOAN = {"init": "van_loan", "right": [1, 2]}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"init": "van_lone", "right": [1, 2]}, r"unknown initialization 'van_lone': did you mean 'van_loan'\?"),
    ({"right": [1, 2]}, r"steps\.0 \(factorize\): the key 'init' is missing"),
    ({"init": 3}, "init is 3; give a name or a mapping with one: "),
    ({"init": {"epsilon": 1}}, "give a name or a mapping with one"),
    ({"init": {"name": "pruning", "epsilom": 1}}, "unknown key 'epsilom': did you mean 'epsilon'"),
    (VAN_LOAN | {"site": "up"}, "unknown key 'site': did you mean 'sites'"),
    (VAN_LOAN | {"terms": 0}, "terms is 0"),
    (VAN_LOAN | {"ratio": 1.5}, "ratio is 1.5"),
    (VAN_LOAN | {"sites": "feed_foward"}, "the pattern 'feed_foward' matches no module of the model; use a role"),
    (VAN_LOAN | {"skip_blocks": [0, 1, 2]}, "matches no module"),
    ({"init": "van_loan"}, r"needs either left: \[m1, n1\] or right"),
    (VAN_LOAN | {"left": [8, 8]}, r"needs either left: \[m1, n1\] or right"),
    (VAN_LOAN | {"right": [1, 5]}, r"layers\.0\.mlp\.gate_proj \(24 × 16\): 5 does not divide the 16 columns"),
    (VAN_LOAN | {"terms": 3}, "terms is 3; .* takes 1 to 2"),
    (VAN_LOAN | {"levels": 2}, "levels: 2 nests the factors of a token embedding.*: set levels: 1 or sites: embedding"),
    (VAN_LOAN | {"sites": "embedding", "levels": 2, "scales": True}, "levels: 2 nests the factors"),
    (VAN_LOAN | {"sites": "embedding", "levels": 9}, "does not divide the 1 columns"),
    (VAN_LOAN | {"blocks": "od"}, "blocks is 'od': Input should be 'all', 'odd' or 'even'"),
    (VAN_LOAN | {"blocks": [7]}, "matches no module"),
    (VAN_LOAN | {"permute": "al"}, "permute is 'al'"),
    (VAN_LOAN | {"sites": "embedding", "head": "none"}, "head is 'none'"),
    ({"init": {"name": "tensor_train", "rank": 2, "modes": [[5, 2], [2, 8]]}}, "feed_forward|layers"),
    ({"init": {"name": "tensor_train_rows", "rank": 1}}, "embedding"),
    ({"init": "pruning", "right": [2, 2]}, r"not 1 terms of 2 × 2; choose right: \[1, 2\]"),
    (VAN_LOAN | {"init": "pruning", "terms": 2}, "pruning takes one term"),
    ({"init": "svd", "sites": "embedding"}, "svd makes linear layers, not the table model.embed_tokens"),
    ({"init": {"name": "calibrated_pruning", "keep": 1}}, r"init calibrated_pruning: keep is 1: .*less than 1"),
    ({"init": {"name": "calibrated_pruning", "keep": 0.01}}, "keep: 0.01 of 24 hidden neurons"),
    (
        {"init": {"name": "calibrated_pruning", "keep": 0.4, "form": "kronecker"}},
        r"keep: 0\.4 of 24 hidden neurons; the form kronecker takes 1/2, 1/3, 1/4",
    ),
    ({"init": {"name": "calibrated_pruning", "form": "wide"}}, "form is 'wide': .*'narrow' or 'kronecker'"),
    ({"init": {"name": "calibrated_pruning", "epsilon": 0.2}}, "epsilon: 0.2 would not be read; .*form: kronecker"),
    (VAN_LOAN | {"permute": "folded", "sites": "embedding"}, "permute: folded finds no order"),
    (
        VAN_LOAN | {"head": "dense"},
        "when the embedding is factorized, and sites is 'feed_forward'; leave it out, or add",
    ),
    (VAN_LOAN | {"blocks": [0, 3]}, "has no block 3; its 3 blocks are numbered from 0"),
    (VAN_LOAN | {"skip_blocks": [-1]}, "has no block -1"),
    (VAN_LOAN | {"blocks": "odd", "skip_blocks": [2]}, "skip_blocks: 2 is not in blocks: 'odd' anyway; leave it out"),
    (
        VAN_LOAN | {"sites": "embedding", "blocks": "odd"},
        "embed_tokens is in no block; leave blocks and skip_blocks out",
    ),
    (VAN_LOAN | {"terms": True}, "terms is True: a number is needed, not true or false"),
    (VAN_LOAN | {"right": [True, 2]}, r"right is \[True, 2\]: a number is needed"),
    ({"init": "svd", "ratio": float("inf")}, "ratio is inf"),
    ({"init": {"name": "pruning", "epsilon": float("nan")}, "right": [1, 2]}, "epsilon is nan: .*finite"),
    ({"init": "calibrated_pruning", "sites": "up"}, "set sites: feed_forward and leave blocks and skip_blocks out"),
    (
        {"init": "calibrated_pruning", "skip_blocks": [0]},
        "set sites: feed_forward and leave blocks and skip_blocks out",
    ),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=str)
def test_it_is_refused_with_the_remedy(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=message):
        run(tmp_path, fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": "untied"}, "head: untied, but the model's head has its own matrix; add head to sites"),
        ({"head": "dense", "sites": "embedding,head"}, "head: dense, but .*; leave it out of sites"),
        ({"head": "dense"}, None),
        ({"head": "untied", "sites": "embedding,head"}, None),
    ],
)
def test_the_head_of_an_untied_model(fields: dict[str, Any], message: str | None, tmp_path: Path) -> None:
    made = parse(Factorize, VAN_LOAN | {"sites": "embedding"} | fields, place="s")
    work = bench(tiny_llama(tied=False), tmp_path)
    if message is None:
        made.check(work)
        return
    with pytest.raises(KronpressError, match=message):
        made.check(work)


@pytest.mark.parametrize("sites", ["feed_forward", "up"])
@pytest.mark.parametrize("init", ["van_loan", "svd", "pruning", "calibrated_pruning"])
def test_what_is_factored_is_not_factored_again(init: str, sites: str, tmp_path: Path) -> None:
    shape = {} if init in ("svd", "calibrated_pruning") else {"right": [1, 2]}
    with pytest.raises(KronpressError, match=r"layers\.0\.mlp\.\w+_proj has been factorized already"):
        run(tmp_path, VAN_LOAN | {"sites": sites}, {"init": init, **shape})
