"""A model with fewer rows answers as before, in every family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import kronpress
from kronpress.errors import KronpressError
from kronpress.families import vocabulary_size
from kronpress.trim import keep_rows
from kronpress.trim.rows import ids_in_configs
from tests import tiny
from tests.conformance.test_families import CASES, build

KEPT = [*range(7), *range(8, 40, 3), *range(100, 263, 2)]
TEXT = torch.tensor(KEPT[2:])[torch.arange(24) * 3 % (len(KEPT) - 2)].view(2, 12)


@CASES
def test_kept_tokens_keep_their_logits(model_type: str, tied: bool, tmp_path: Path) -> None:
    model = build(model_type, tied=tied)
    before, parameters = tiny.logits(model, TEXT), model.num_parameters()
    keep_rows(model, KEPT)
    new = torch.searchsorted(torch.tensor(KEPT), TEXT)
    torch.testing.assert_close(tiny.logits(model, new), before[..., KEPT], atol=1e-5, rtol=1e-5)
    assert vocabulary_size(model) == len(KEPT)
    assert model.num_parameters() < parameters
    opened = kronpress.load(kronpress.save(model, tmp_path / "saved"))
    assert torch.equal(tiny.logits(opened, new), tiny.logits(model, new))


def test_configs_name_the_new_ids() -> None:
    model = tiny.tiny_llama(eos_token_id=[6, 40], pad_token_id=30)
    model.config.image_token_id, model.generation_config.eos_token_id = None, [40, 6]
    assert ids_in_configs(model) == {5, 6, 30, 40}
    keep_rows(model, [1, 5, 6, 7, 30, 40])
    config = model.config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id, config.vocab_size) == (1, [2, 5], 4, 6)
    assert model.generation_config.eos_token_id == [5, 2]
    assert model.get_input_embeddings().padding_idx == 4


def test_positions_behind_padding_must_stay() -> None:
    with pytest.raises(KronpressError, match="positions from the id of padding, which would go from 1 to 0"):
        keep_rows(build("roberta", pad_token_id=1), [1, 2, 3, 5, 6])


def test_factors_have_rows_that_stay(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="trim the dense model first"):
        keep_rows(tiny.factorized(tiny.tiny_llama(), tmp_path), KEPT)
