"""The reconstruct step of a recipe."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar

import safetensors
import safetensors.torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.activations import BlockStream
from kronpress.activations.attention import training_attention
from kronpress.bars import Bar
from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.families import layout, window_of
from kronpress.layers import quantized_tensors, stored_numbers
from kronpress.reconstruct.block import Pairs, Schedule, train_block
from kronpress.records import BlockErrors, ReconstructRecord
from kronpress.step import STEPS, Needs, Step, Workbench

_JUDGED = 16  # one batch in so many is not trained on


@STEPS.enroll
class Reconstruct(Step):
    """Train each block of a compressed student to give what it gives in the dense model; no loss of the whole model.

    The text streams through both models. A block learns from what reaches it in the student, with the errors of the
    blocks before, and aims at what leaves it in the dense model (block reconstruction; BRECQ, Li et al., 2021, section
    3.2). Only one block is trained at a time, so that this takes little memory. It goes on at the block where it was
    interrupted.

    Attributes:
        tokens: of the training text, in windows from all over it; one batch in 16 is not trained on and selects the
            epoch.
        window: tokens per window; by default 512, or as many as the model sees.
        batch: windows in a training step.
        epochs: passes over the text for each block.
        learning_rate: at the first step; it falls to 0 along a cosine.
    """

    kind: ClassVar[str] = "reconstruct"
    tokens: int = Field(default=131072, ge=1)
    window: int | None = Field(default=None, ge=2)
    batch: int = Field(default=2, ge=1)
    epochs: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0)

    def needs(self) -> Needs:
        """Return that teacher and text are read, and that a copy of the blocks is written."""
        return Needs(copies=1)

    def check(self, bench: Workbench) -> None:
        """Check that student and dense model have equally many blocks, and that the text has two batches."""
        self._require_possible(bench)
        self._windows(bench, tokens=2 * self.batch * self._size(bench.student))

    def run(self, bench: Workbench) -> ReconstructRecord:
        """Train block by block."""
        self._require_possible(bench)
        windows = self._windows(bench, tokens=self.tokens)
        errors = []
        with training_attention(bench.student, bench.teacher):
            aim = BlockStream.begin(bench.teacher, windows, at_once=self.batch)
            stream = BlockStream.begin(bench.student, windows, at_once=self.batch)
            for block in Bar(range(len(stream.layout.block_paths)), desc="reconstruct", unit="block"):
                aim.advance(bench.teacher, block=block)
                errors.append(self._trained(bench, stream, aim.hidden, block=block))
                stream.advance(bench.student, block=block)
        parameters = stored_numbers(bench.student)
        return ReconstructRecord(method=self.model_dump(mode="json"), blocks=tuple(errors), parameters=parameters)

    def _trained(
        self, bench: Workbench, stream: BlockStream, wanted: list[Float[Tensor, "windows tokens dim"]], *, block: int
    ) -> BlockErrors:
        """Train a block, or take it as it was trained before an interruption."""
        module = bench.student.get_submodule(stream.layout.block_paths[block])
        path = bench.folder / "trainer" / f"block-{block:03}.safetensors"
        if path.exists():
            module.load_state_dict(safetensors.torch.load_file(path, device=str(bench.student.device)))
            return BlockErrors(block, *_errors_in(path))
        pairs = Pairs(stream.hidden, wanted, judged=max(1, len(wanted) // _JUDGED))
        run = partial(stream.output, bench.student, block=block)
        schedule = Schedule(self.epochs, self.learning_rate)
        before, after = train_block(module, run, pairs, schedule=schedule, seed=bench.seed + block)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_tensors(path, module.state_dict(), metadata={"before": repr(before), "after": repr(after)})
        return BlockErrors(block, before, after)

    def _require_possible(self, bench: Workbench) -> None:
        ours, theirs = (len(layout(model).block_paths) for model in (bench.student, bench.teacher))
        if ours != theirs:
            raise KronpressError(
                f"reconstruct aims at the dense model's blocks one by one, and the student has {ours} of its {theirs}; "
                "truncate with repair: true instead, or distill"
            )
        if any(True for _ in quantized_tensors(bench.student)):
            raise KronpressError(
                "reconstruct trains plain numbers, and the student has some on grids; quantize after it"
            )

    def _size(self, model: PreTrainedModel) -> int:
        return window_of(model, self.window)

    def _windows(self, bench: Workbench, *, tokens: int) -> Int[Tensor, "windows size"]:
        """Return as many windows as make whole batches."""
        windows = bench.training_windows(size=self._size(bench.student), tokens=tokens)
        whole = len(windows) // self.batch * self.batch
        if whole < 2 * self.batch:
            raise KronpressError(
                f"{bench.train.name} has {len(windows)} windows of {windows.shape[1]} tokens, and reconstruct takes "
                f"two batches of {self.batch}; give a longer text, or a smaller batch or window"
            )
        return windows[:whole]


def _errors_in(path: Path) -> tuple[float, float]:
    with safetensors.safe_open(path, framework="pt") as opened:
        facts = opened.metadata()
    return float(facts["before"]), float(facts["after"])
