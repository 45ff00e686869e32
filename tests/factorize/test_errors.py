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


HALVED: dict[str, Any] = {"form": {"name": "kronecker", "right": [1, 2]}}


def halved(**form: Any) -> dict[str, Any]:
    return {"form": HALVED["form"] | form}


def methods(name: str, **fields: Any) -> dict[str, Any]:
    return {"method": {"name": name, **fields}}


REFUSED: list[tuple[dict[str, Any], str]] = [
    (methods("van_lone", right=[1, 2]), r"unknown method 'van_lone': did you mean 'van_loan'\?"),
    ({}, r"steps\.0 \(factorize\): the key 'form' is missing"),
    ({"method": 3}, "method is 3; give a name or a mapping with one: "),
    ({"form": 3}, "form is 3; give a name or a mapping with one: "),
    ({"form": {"ratio": 0.5}}, "form is .*; give a name or a mapping with one"),
    ({"form": "kroneker"}, "unknown form 'kroneker': did you mean 'kronecker'"),
    (HALVED | {"fit": "neerest"}, "unknown fit 'neerest': did you mean 'nearest'"),
    (methods("pruning", right=[1, 2], epsilom=1), "method pruning: unknown key 'epsilom': did you mean 'epsilon'"),
    (
        methods("svd", right=[1, 2]),
        r"svd: unknown key 'right': .*; it belongs to form: \{name: kronecker, right",
    ),
    (methods("calibrated_pruning"), "calibrated_pruning is a step of its own: write step: prune"),
    (methods("svd") | HALVED, "give either method or form and fit"),
    ({"init": "van_loan", "sites": "up"}, "init is no key: write method: 'van_loan' for a published name"),
    (HALVED | {"right": [1, 2]}, r"right is no key of the step; it belongs to form: \{name: kronecker, right: …\}"),
    (HALVED | {"ridge": 1}, r"ridge is no key of the step; it belongs to fit: \{name: whitened, ridge: …\}"),
    (halved(ratio=0.5), r"form kronecker: ratio is none of its keys; it belongs to .*form: \{name: low_rank, ratio"),
    (HALVED | {"fit": {"name": "nearest", "epsilon": 0.2}}, r"it belongs to fit: \{name: channels, epsilon: …\}"),
    (
        {"form": {"name": "tensor_train", "rank": 2}, "fit": "whitened"},
        "not find the numbers of form: tensor_train",
    ),
    ({"form": "low_rank", "fit": "normalized"}, "fit: normalized is for form: kronecker, not low_rank"),
    (HALVED | {"site": "up"}, "unknown key 'site': did you mean 'sites'"),
    (halved(terms=0), "terms is 0"),
    ({"form": {"name": "low_rank", "ratio": 1.5}}, "ratio is 1.5"),
    (HALVED | {"sites": "feed_foward"}, "the pattern 'feed_foward' matches no module of the model; use a role"),
    (HALVED | {"skip_blocks": [0, 1, 2]}, "matches no module"),
    ({"form": "kronecker"}, r"needs either left: \[m1, n1\] or right"),
    (halved(left=[8, 8]), r"needs either left: \[m1, n1\] or right"),
    (halved(right=[1, 5]), r"layers\.0\.mlp\.gate_proj \(24 × 16\): 5 does not divide the 16 columns"),
    (halved(terms=3), "terms is 3; .* takes 1 to 2"),
    (halved(levels=2), "levels: 2 nests the factors of a token embedding.*: set levels: 1 or sites: embedding"),
    (halved(levels=2, scales=True) | {"sites": "embedding"}, "levels: 2 nests the factors"),
    (halved(levels=9) | {"sites": "embedding"}, "does not divide the 1 columns"),
    (halved(levels=2) | {"sites": "embedding", "fit": "frequency"}, "levels: 2 goes with fit: nearest, not frequency"),
    (HALVED | {"blocks": "od"}, "blocks is 'od': Input should be 'all', 'odd' or 'even'"),
    (HALVED | {"blocks": [7]}, "matches no module"),
    (halved(permute="al"), "permute is 'al'"),
    (HALVED | {"sites": "embedding", "head": "none"}, "head is 'none'"),
    ({"form": {"name": "tensor_train", "rank": 2, "modes": [[5, 2], [2, 8]]}}, "feed_forward|layers"),
    ({"form": {"name": "tensor_train_rows", "rank": 1}}, "embedding"),
    (halved(right=[2, 2]) | {"fit": "channels"}, r"not 1 terms of 2 × 2; choose right: \[1, 2\]"),
    (halved(terms=2) | {"fit": "channels"}, "channels takes one term"),
    ({"form": "low_rank", "sites": "embedding"}, "low_rank makes linear layers, not the table model.embed_tokens"),
    (halved(permute="folded") | {"sites": "embedding"}, "permute: folded finds no order"),
    (
        HALVED | {"head": "dense"},
        "when the embedding is factorized, and sites is 'feed_forward'; leave it out, or add",
    ),
    (HALVED | {"blocks": [0, 3]}, "has no block 3; its 3 blocks are numbered from 0"),
    (HALVED | {"skip_blocks": [-1]}, "has no block -1"),
    (HALVED | {"blocks": "odd", "skip_blocks": [2]}, "skip_blocks: 2 is not in blocks: 'odd' anyway; leave it out"),
    (
        HALVED | {"sites": "embedding", "blocks": "odd"},
        "embed_tokens is in no block; leave blocks and skip_blocks out",
    ),
    (halved(terms=True), "terms is True: a number is needed, not true or false"),
    (halved(right=[True, 2]), r"right is \[True, 2\]: a number is needed"),
    ({"form": {"name": "low_rank", "ratio": float("inf")}}, "ratio is inf"),
    (HALVED | {"fit": {"name": "channels", "epsilon": float("nan")}}, "epsilon is nan: .*finite"),
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
    made = parse(Factorize, HALVED | {"sites": "embedding"} | fields, place="s")
    work = bench(tiny_llama(tied=False), tmp_path)
    if message is None:
        made.check(work)
        return
    with pytest.raises(KronpressError, match=message):
        made.check(work)


@pytest.mark.parametrize("sites", ["feed_forward", "up"])
@pytest.mark.parametrize("again", [HALVED, {"form": "low_rank"}, HALVED | {"fit": "channels"}], ids=str)
def test_what_is_factored_is_not_factored_again(again: dict[str, Any], sites: str, tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=r"layers\.0\.mlp\.\w+_proj has factors or codes already"):
        run(tmp_path, HALVED | {"sites": sites}, again)
