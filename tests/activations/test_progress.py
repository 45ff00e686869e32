"""A walk that was interrupted goes on at its block, and ends as if it had not been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kronpress.activations import BlockStream, progress
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.prune import Prune
from kronpress.quantize import Quantize
from kronpress.step import Step
from tests.tiny import TEXT, bench, tiny_bert, tiny_gpt2, tiny_llama

TOKENS: dict[str, Any] = {"tokens": 1024, "window": 64}
WHITENED = {"fit": {"name": "whitened", **TOKENS}, "sites": "attention,up,down"}
KRONECKER = {"name": "kronecker", "right": (1, 2), "permute": "folded"}
CASES = {
    "neurons": (tiny_llama, Prune(fit=TOKENS)),
    "products of neurons": (tiny_gpt2, Prune(fit=TOKENS, form="kronecker")),
    "whole heads": (tiny_llama, Prune(fit=TOKENS, heads=0.5)),
    "smaller heads of one matrix": (tiny_gpt2, Prune(fit=TOKENS, query_key=0.5, value_output=0.5)),
    "smaller heads": (tiny_bert, Prune(fit=TOKENS, keep=None, value_output=0.5)),
    "low rank": (tiny_gpt2, Factorize(**WHITENED, form="low_rank")),
    "products in another order": (tiny_llama, Factorize(**WHITENED, form=KRONECKER)),
    "codes": (tiny_llama, Quantize(weights={"bits": 4}, tables=8, inputs=8, fit={"name": "compensated", **TOKENS})),
    "low rank and rows": (tiny_bert, Factorize(**WHITENED, form="losparse")),
}


class _Stops:
    """Counts how often a text is led through a block, and interrupts the walk at one of these times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.last = 0, -1
        outputs = BlockStream.outputs

        def counted(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.last:
                raise KeyboardInterrupt
            return outputs(*args, **options)

        monkeypatch.setattr(BlockStream, "outputs", counted)

    def over(self, step: Step, build: Any, folder: Path, *, last: int = -1, text: str = TEXT) -> tuple[Any, Any]:
        self.count, self.last = 0, last
        work = bench(build(), folder, text=text)
        record = step.run(work)
        assert not (folder / "trainer").exists()
        return record, work.student.state_dict()


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> _Stops:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    return _Stops(monkeypatch)


@pytest.mark.parametrize("case", CASES)
def test_it_goes_on_at_the_block_with_the_same_bits(case: str, tmp_path: Path, stops: _Stops) -> None:
    build, step = CASES[case]
    record, expected = stops.over(step, build, tmp_path / "straight")
    whole = stops.count
    with pytest.raises(KeyboardInterrupt):
        stops.over(step, build, tmp_path / "stopped", last=whole)
    again, found = stops.over(step, build, tmp_path / "stopped")
    assert stops.count <= whole / 2
    assert again == record
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


OTHERS: list[tuple[Step, dict[str, Any]]] = [
    (Prune(fit=TOKENS), {"text": TEXT[::-1]}),
    (Prune(fit=TOKENS), {"build": lambda: tiny_llama(seed=1)}),
    (Prune(fit=TOKENS, keep=0.25), {}),
    (Factorize(**WHITENED, form="low_rank"), {}),
]


@pytest.mark.parametrize(("step", "other"), OTHERS)
def test_another_walk_in_its_folder_begins_anew(step: Step, other: Any, tmp_path: Path, stops: _Stops) -> None:
    _, expected = stops.over(step, **{"build": tiny_llama} | other, folder=tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        stops.over(Prune(fit=TOKENS), tiny_llama, tmp_path / "stopped", last=5)
    _, found = stops.over(step, **{"build": tiny_llama} | other, folder=tmp_path / "stopped")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-8])])
def test_damaged_work_is_said_and_not_used(damage: Any, tmp_path: Path, stops: _Stops) -> None:
    with pytest.raises(KeyboardInterrupt):
        stops.over(Prune(fit=TOKENS), tiny_llama, tmp_path, last=5)
    damage(tmp_path / "trainer" / "block-000.safetensors")
    with pytest.raises(
        KronpressError, match=r"unfinished work in .*trainer is damaged .*; remove it, and the step beg"
    ):
        stops.over(Prune(fit=TOKENS), tiny_llama, tmp_path)
