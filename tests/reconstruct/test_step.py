"""Blocks trained one by one to give what they give in the dense model."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.prune import Prune
from kronpress.quantize import Quantize
from kronpress.reconstruct import Reconstruct
from kronpress.reconstruct.block import relative_error
from kronpress.run import execute, make_recipe
from kronpress.step import Workbench
from kronpress.truncate import Truncate
from tests.tiny import bench, factorized, save_tiny, some_ids, tiny_bert, tiny_gpt2, tiny_llama

STEP = Reconstruct(tokens=2048, window=32, batch=2, epochs=3, learning_rate=3e-3)


def pruned(model: PreTrainedModel, folder: Path) -> Workbench:
    work = bench(model, folder)
    Prune(keep=0.5, fit={"tokens": 256, "window": 32}).run(work)
    return work


@pytest.mark.parametrize("model", [tiny_llama(), tiny_gpt2(), tiny_bert()], ids=["llama", "gpt2", "bert"])
def test_every_block_comes_nearer_to_the_dense_one_and_so_does_the_model(
    model: PreTrainedModel, tmp_path: Path
) -> None:
    work = pruned(model, tmp_path)
    before = _distance(work)
    record = STEP.run(work)
    assert len(record.blocks) == 3
    assert all(block.after < block.before for block in record.blocks)
    assert _distance(work) < before


def test_factors_learn_and_what_is_outside_of_the_blocks_stays(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    work.student = factorized(work.teacher, tmp_path, sites="feed_forward,embedding")
    outside = {name: value.clone() for name, value in work.student.state_dict().items() if ".layers." not in name}
    record = STEP.run(work)
    assert all(block.after < block.before for block in record.blocks)
    after = work.student.state_dict()
    assert outside and all(torch.equal(after[name], value) for name, value in outside.items())


def test_a_dense_student_has_no_error_and_stays_as_it_is(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    record = STEP.run(work)
    assert [(block.before, block.after) for block in record.blocks] == [(0.0, 0.0)] * 3
    assert all(torch.equal(a, b) for a, b in zip(work.student.parameters(), work.teacher.parameters(), strict=True))


def test_a_rate_that_is_too_high_changes_nothing(tmp_path: Path) -> None:
    work = pruned(tiny_llama(), tmp_path)
    before = copy.deepcopy(work.student.state_dict())
    record = STEP.model_copy(update={"learning_rate": 1e3}).run(work)
    assert all(block.after == block.before for block in record.blocks)
    assert all(torch.equal(value, before[name]) for name, value in work.student.state_dict().items())


def test_it_goes_on_at_the_block_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pruned(tiny_llama(), tmp_path / "whole")
    expected = STEP.run(whole)
    calls: list[Path] = []
    original = files.write_tensors

    def killed(path: Path, *args: object, **kwargs: object) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(path, *args, **kwargs)

    monkeypatch.setattr(files, "write_tensors", killed)
    work = pruned(tiny_llama(), tmp_path / "killed")
    start = copy.deepcopy(work.student)
    with pytest.raises(KeyboardInterrupt):
        STEP.run(work)
    work.student = start
    assert STEP.run(work) == expected
    assert [path.stem for path in calls] == ["block-000", "block-001", "block-001", "block-002"]
    assert all(torch.equal(a, b) for a, b in zip(work.student.parameters(), whole.student.parameters(), strict=True))


def test_the_error_is_relative_for_every_token() -> None:
    wanted = torch.tensor([[[100.0, 0.0], [1.0, 0.0]]])
    given = torch.tensor([[[90.0, 0.0], [1.0, 0.2]]])
    assert float(relative_error(given, wanted)) == pytest.approx((0.01 + 0.04) / 2)


def test_a_run_reports_the_errors_of_the_blocks(tmp_path: Path) -> None:
    steps = [
        {"step": "prune", "fit": {"tokens": 256, "window": 32}},
        {"step": "reconstruct", "tokens": 1024, "window": 32},
    ]
    recipe = make_recipe({"model": str(save_tiny(tmp_path / "model")), "precision": "fp32", "steps": steps})
    run = execute(recipe, tmp_path / "run")
    note = next(note for note in run.summary().notes if "one by one" in note)
    assert note.startswith("training the blocks one by one brought 3 of 3 nearer to the dense ones")
    page = run.report_page.read_text(encoding="utf-8")
    assert "Blocks trained one by one" in page and "Errors of blocks before and after reconstruction" in page
    assert not list(run.folder.rglob("block-*.safetensors"))


def test_what_it_cannot_honor_is_refused(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    with pytest.raises(KronpressError, match="too long"):
        STEP.model_copy(update={"window": 100000}).check(work)
    with pytest.raises(KronpressError, match="takes two batches of 10000"):
        STEP.model_copy(update={"batch": 10000}).check(work)
    Truncate(keep=2).run(work)
    for of in (STEP.check, STEP.run):
        with pytest.raises(KronpressError, match="the student has 2 of its 3; truncate with repair"):
            of(work)
    quantized = bench(tiny_llama(), tmp_path)
    Quantize(weights=4, tables=4).run(quantized)
    with pytest.raises(KronpressError, match="some on grids; quantize after it"):
        STEP.run(quantized)


@torch.no_grad()
def _distance(work: Workbench) -> float:
    ids = some_ids(batch=4, tokens=32)
    ours, theirs = (model(input_ids=ids).logits for model in (work.student, work.teacher))
    return float((ours - theirs).square().mean())
