from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from kronpress.checkpoint import load, save
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.families import replace_module, select_sites
from kronpress.layers import FactoredHead, TensorTrainEmbedding, TensorTrainLinearSpec, weight_of
from kronpress.linalg import paired_modes
from kronpress.validation import parse
from tests.tiny import DIM, VOCABULARY, WIDTH, bench, logits, tiny_gpt2, tiny_llama, tiny_tokenizer

UP, DOWN, TABLE = "transformer.h.0.mlp.c_fc", "transformer.h.0.mlp.c_proj", "transformer.wte"


def factorize(**fields: Any) -> Factorize:
    return parse(Factorize, fields, place="steps.0 (factorize)")


def trained(**fields: Any) -> dict[str, Any]:
    return {"form": {"name": "tensor_train", **fields}}


def rows(**fields: Any) -> dict[str, Any]:
    return {"form": {"name": "tensor_train_rows", **fields}, "sites": "embedding"}


PUBLISHED = [  # TTM-16, 32 and 64 without the biases of the feed-forward blocks, and TTM-80, of GPT-2
    (16, False, 68_085_504),
    (32, False, 71_756_544),
    (64, False, 83_606_784),
    (80, True, 107_698_944),
]


@pytest.mark.parametrize(("rank", "bias", "parameters"), PUBLISHED, ids=str)
def test_parameters_of_the_published_models(rank: int, bias: bool, parameters: int) -> None:
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config())
    for site in select_sites(model, "feed_forward"):
        out_features, in_features = weight_of(model.get_submodule(site.path)).shape
        modes = paired_modes((out_features, in_features), at_least=rank)
        spec = TensorTrainLinearSpec(modes=modes, ranks=(rank,) * (len(modes) - 1), bias=bias)
        replace_module(model, site.path, module=spec.build(device="meta"))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_modes_are_chosen_by_the_rank_and_swapped_for_the_down_projection(tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    factorize(**trained(rank=5)).run(work)
    up, down = (work.student.get_submodule(path) for path in (UP, DOWN))
    assert up.modes == paired_modes((WIDTH, DIM), at_least=5)
    assert down.modes == paired_modes((DIM, WIDTH), at_least=5)
    assert max(up.ranks) <= 5


def test_given_modes_are_swapped_for_the_down_projection(tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    factorize(**trained(rank=2, modes=[[6, 8], [4, 2]])).run(work)
    up, down = (work.student.get_submodule(path) for path in (UP, DOWN))
    assert (up.modes, down.modes) == (((6, 8), (4, 2)), ((8, 6), (2, 4)))


@pytest.mark.parametrize("bias", [True, False])
def test_the_bias_goes_only_if_that_is_asked_for(bias: bool, tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    report = factorize(**trained(rank=9, bias=bias)).run(work)
    layer, dense = (model.get_submodule(UP) for model in (work.student, work.teacher))
    assert (layer.bias is not None) is bias
    missed = (layer.to_dense().weight - weight_of(dense)).norm() / weight_of(dense).norm()
    assert report.modules[0].relative_error == pytest.approx(missed.item(), abs=1e-6)


def test_redundant_ranks_leave_the_function_and_train(tmp_path: Path) -> None:
    lean, padded = (bench(tiny_gpt2(), tmp_path) for _ in range(2))
    reports = [
        factorize(**trained(rank=20, redundant=flag), sites="up").run(work)
        for flag, work in ((False, lean), (True, padded))
    ]
    torch.testing.assert_close(logits(padded.student), logits(lean.student), atol=1e-4, rtol=1e-4)
    layers = [work.student.get_submodule(UP) for work in (lean, padded)]
    assert [layer.ranks for layer in layers] == [(1, 6, 1), (1, 20, 1)]
    assert reports[0].modules[0].relative_error == reports[1].modules[0].relative_error
    layers[1](torch.randn(7, DIM, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    first, second = (core.grad for core in layers[1].cores)
    assert first[..., :6].abs().amax(dim=(0, 1, 2)).min() > 0
    assert second[6:].abs().amax(dim=(1, 2, 3)).min() > 0


@pytest.mark.parametrize("tied", [True, False])
def test_a_table_is_factored_row_by_row_and_its_tied_head_follows(tied: bool, tmp_path: Path) -> None:
    work = bench(tiny_llama(tied=tied, pad_token_id=3), tmp_path)
    factorize(**rows(rank=1)).run(work)
    table, head = work.student.get_input_embeddings(), work.student.get_output_embeddings()
    assert isinstance(table, TensorTrainEmbedding)
    assert table.modes == (2, 2, 4)
    assert table.matrix == (VOCABULARY, DIM)
    assert table.padding_idx == 3
    assert isinstance(head, FactoredHead if tied else nn.Linear)
    assert (not tied) or head.table is table


def test_a_table_of_full_rank_leaves_the_function(tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    factorize(**rows(rank=4)).run(work)
    torch.testing.assert_close(logits(work.student), logits(work.teacher), atol=1e-4, rtol=1e-4)


def test_a_checkpoint_opens_again(tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    factorize(**trained(rank=3), sites="all").run(work)
    factorize(**rows(rank=1)).run(work)
    save(work.student, tmp_path / "model", tokenizer=tiny_tokenizer())
    again = load(tmp_path / "model")
    assert torch.equal(logits(again), logits(work.student))
    assert again.get_output_embeddings().table is again.get_input_embeddings()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"form": "tensor_train"}, "form tensor_train: the key 'rank' is missing"),
    (trained(rank=0), "form tensor_train: rank is 0"),
    (trained(rank=2, modes=[]), "form tensor_train: modes is "),
    (trained(rank=2, mode=[[4, 4]]), "unknown key 'mode': did you mean 'modes'"),
    (
        trained(rank=2, modes=[[5, 4], [4, 4]]),
        r"h\.0\.mlp\.c_fc \(24 × 16\): the row modes 5 · 4 multiply to 20, not 24; choose from its divisors 1, 2, 3, ",
    ),
    (trained(rank=2, modes=[[6, 4], [4, 5]]), r"h\.0\.mlp\.c_fc \(24 × 16\): the column modes 4 · 5 multiply to 20"),
    (
        trained(rank=2, modes=[[8, 4], [4, 4]]) | {"sites": "qkv"},
        r"h\.0\.attn\.c_attn \(16 × 16\): the row modes 8 · 4 multiply to 32, not 16",
    ),
    (
        trained(rank=2) | {"sites": "up,embedding"},
        r"tensor_train makes linear layers, not the table transformer\.wte; .* form: .*tensor_train_rows",
    ),
    (
        rows(rank=1) | {"sites": "up"},
        r"tensor_train_rows makes token tables, not the linear layer .*mlp\.c_fc; set sites: embedding",
    ),
    (rows(rank=1, modes=[4, 5]), r"transformer\.wte \(264 × 16\): the column modes 4 · 5 multiply to 20, not 16"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=str)
def test_what_does_not_fit_is_refused_before_the_run(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    with pytest.raises(KronpressError, match=message):
        factorize(**fields).check(work)
    with pytest.raises(KronpressError, match=message):
        factorize(**fields).run(work)


@pytest.mark.parametrize("sites", ["feed_forward", "all", "embedding,head"])
def test_what_fits_passes_the_check(sites: str, tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    step = factorize(**(rows(rank=1) if "embedding" in sites else trained(rank=2)) | {"sites": sites})
    step.check(work)
    step.run(work)
