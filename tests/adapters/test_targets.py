"""What takes adapters, as which matrix, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel, PreTrainedModel

from kronpress.adapters.targets import targets_of
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.quantize import Quantize
from tests.tiny import bench, factorized, tiny_bert, tiny_gpt2, tiny_llama


@pytest.mark.parametrize(("role", "matrix"), [("up", (24, 16)), ("down", (16, 24))])
def test_the_weight_of_a_dense_layer_is_outputs_by_inputs(role: str, matrix: tuple[int, int]) -> None:
    for model in (tiny_llama(), tiny_gpt2(), tiny_bert()):
        for target in targets_of(model, role):
            update = torch.arange(24 * 16.0).view(matrix)
            assert target.matrix == matrix
            assert torch.equal(target.folded(update), update.T if isinstance(model, GPT2LMHeadModel) else update)


def test_the_first_sides_of_a_factor_are_the_rows(tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    Factorize(method={"name": "van_loan", "right": (2, 2), "terms": 3}, sites="attention").run(work)
    Factorize(method={"name": "tensor_train", "rank": 4, "modes": [[4, 4], [6, 4]]}, sites="up").run(work)
    matrices = {
        target.path: target.matrix for target in targets_of(work.student, "attention,up") if ".0." in target.path
    }
    attention = "transformer.h.0.attn.c_attn.parts"
    assert matrices[f"{attention}.1.left"] == (3 * 8, 8) and matrices[f"{attention}.2.right"] == (3 * 2, 2)
    assert matrices["transformer.h.0.mlp.c_fc.cores.0"] == (4, 16)
    assert matrices["transformer.h.0.mlp.c_fc.cores.1"] == (24, 4)


@pytest.mark.parametrize("model", [tiny_llama(), tiny_gpt2(), tiny_llama(tied=False)], ids=["llama", "gpt2", "untied"])
def test_token_tables_are_refused_and_a_head_of_its_own_is_not(model: PreTrainedModel) -> None:
    with pytest.raises(KronpressError, match="is a token table, or reads one, and takes no adapter; leave it out"):
        targets_of(model, "embedding")
    if model.config.tie_word_embeddings:
        with pytest.raises(KronpressError, match="'lm_head' is a token table, or reads one"):
            targets_of(model, "head")
    else:
        assert [target.path for target in targets_of(model, "head")] == ["lm_head.weight"]


def test_a_head_that_reads_a_factored_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="'lm_head' is a token table, or reads one"):
        targets_of(factorized(tiny_llama(), tmp_path), "head")


def test_codes_of_a_few_bits_are_refused_with_the_remedy(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    Quantize(weights={"bits": 4, "group": 8}, skip="down").run(work)
    with pytest.raises(KronpressError, match=r"'model.layers.0.mlp.up_proj' holds codes .* quantize after this step"):
        targets_of(work.student, "up,down")
    assert len(targets_of(work.student, "down")) == 3


def test_a_pattern_that_names_nothing_is_refused() -> None:
    with pytest.raises(KronpressError, match="'upp' matches no module of the model; use a role"):
        targets_of(tiny_llama(), "upp")
