"""Blocks one by one: that goes whose absence costs the least."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from transformers import PreTrainedModel

from kronpress.bars import Bar
from kronpress.checkpoint.digests import weights_digest
from kronpress.checkpoint.files import read_json, write_json
from kronpress.data.cached import cached, key_of, making
from kronpress.errors import KronpressError
from kronpress.precision import number_format
from kronpress.records import BlockMeasure
from kronpress.step import Workbench
from kronpress.truncate.blocks import keep_blocks, sharing
from kronpress.truncate.choice import CHOICES, Chosen, Measured, calibration, depth_of
from kronpress.truncate.judge import Judge


@CHOICES.enroll
class Greedy(Measured):
    """Remove the block without which the loss on text is lowest, again and again.

    Every round measures all blocks that are left. What was measured is kept in the cache, for the model, the text and
    the number format, so that an interrupted search goes on, and one for another number of blocks has less to measure.

    Attributes:
        tokens: of the training text on which the loss is measured.
    """

    kind: ClassVar[str] = "greedy"
    tokens: int = Field(default=8192, ge=2)

    def choose(self, bench: Workbench, *, keep: int | None) -> Chosen:
        """Search for the blocks, round by round."""
        depth, number = depth_of(bench.student), self.number(keep, bench.student)
        judge = Judge.of(bench.student, calibration(bench, tokens=self.tokens))
        losses = _Losses.of(bench.student, judge)
        left, measured = list(range(depth)), []
        rounds = range(depth, number, -1)
        with Bar(total=sum(rounds), desc="blocks without which the loss is lowest", unit="model") as bar:
            for _ in rounds:
                block, loss = losses.cheapest(left, bar)
                left.remove(block)
                measured.append(BlockMeasure(block, loss))
        return Chosen(tuple(left), tuple(measured), f"{judge.measure}, without it and those before")


@dataclass
class _Losses:
    """The losses of a model with some of its blocks, kept in a file as they are measured."""

    path: Path
    model: PreTrainedModel
    judge: Judge
    values: dict[str, float]

    @classmethod
    def of(cls, model: PreTrainedModel, judge: Judge) -> _Losses:
        """Take up what earlier searches have measured; a file that is damaged is written anew."""
        text = hashlib.sha256(judge.windows.cpu().numpy().tobytes()).hexdigest()
        facts = [weights_digest(model), model.config.to_json_string(), text, number_format(model.device).name]
        path = cached("truncate", key_of(*facts)) / "losses.json"
        try:
            values = {str(key): float(value) for key, value in read_json(path).items()} if path.exists() else {}
        except (KronpressError, AttributeError, TypeError, ValueError):
            values = {}
        return cls(path, model, judge, values)

    def cheapest(self, left: Sequence[int], bar: Bar) -> tuple[int, float]:
        """Return the block without which the loss of those that are left is lowest, and that loss.

        Raises:
            KronpressError: none can be left out.
        """
        losses, refused = {}, None
        for block in left:
            try:
                losses[block] = self._loss([other for other in left if other != block])
            except KronpressError as error:  # what remains would compute otherwise
                refused = error
            bar.update()
        if not losses:
            raise KronpressError(f"none of the blocks {list(left)} can be left out: {refused}")
        return min(losses.items(), key=lambda entry: entry[1])

    def _loss(self, kept: Sequence[int]) -> float:
        key = " ".join(map(str, kept))
        if key not in self.values:
            shortened = sharing(self.model)
            keep_blocks(shortened, kept)
            self.values[key] = self.judge.loss(shortened)
            with making(self.path.parent, needed=0):
                write_json(self.path, self.values)
        return self.values[key]
