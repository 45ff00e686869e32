"""Where the dense stream of calibrated pruning comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.prune import Prune
from kronpress.truncate.blocks import keep_blocks
from tests.tiny import bench, logits, tiny_bert, tiny_gpt2, tiny_llama

FIT = {"tokens": 4096, "window": 64}
BUILDERS = pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2, tiny_bert])


@BUILDERS
def test_both_aims_are_one_where_nothing_has_changed(build: Any, tmp_path: Path) -> None:
    student, dense = bench(build(), tmp_path / "a"), bench(build(), tmp_path / "b")
    Prune(fit=FIT).run(student)
    Prune(fit=FIT, aim="dense").run(dense)
    torch.testing.assert_close(logits(student.student), logits(dense.student), rtol=0, atol=0)


@pytest.mark.parametrize("shares", [{"keep": 0.5}, {"keep": 0.5, "value_output": 0.75}])
@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2])
def test_what_a_smaller_table_has_lost_is_made_up_for(build: Any, shares: dict[str, float], tmp_path: Path) -> None:
    missed = {}
    for aim in ("student", "dense"):
        work = bench(build(), tmp_path / aim)
        Factorize(sites="embedding", form={"name": "kronecker", "right": (1, 16), "terms": 8}).run(work)
        Prune(**shares, fit=FIT, aim=aim).run(work)
        ids = work.training_windows(size=64)[60:90]
        missed[aim] = float((last(work.student, ids) - last(work.teacher, ids)).norm())
    assert missed["dense"] < 0.97 * missed["student"]


@torch.no_grad()
def last(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """What leaves the last block."""
    states: torch.Tensor = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    return states


def test_blocks_aim_at_as_many(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    keep_blocks(work.student, [0, 2])
    with pytest.raises(KronpressError, match="the student has 2 blocks of width 16, the dense model 3 of 16"):
        Prune(fit=FIT, aim="dense").check(work)
    Prune(fit=FIT).check(work)


def test_the_dense_model_is_asked_for_where_it_is_the_aim() -> None:
    assert Prune(aim="dense").needs().teacher
    assert not Prune().needs().teacher
