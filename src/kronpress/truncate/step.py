"""The truncate step of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field, SerializeAsAny, field_validator
from transformers import PreTrainedModel

from kronpress.checkpoint import adopt, settle_ties
from kronpress.layers import stored_numbers
from kronpress.records import RepairMeasure, TruncateRecord
from kronpress.step import STEPS, Needs, Step, Workbench
from kronpress.truncate.blocks import cut_blocks, keep_blocks, sharing
from kronpress.truncate.choice import CHOICES, Choice, apart, depth_of
from kronpress.truncate.formulas import Alternate, Listed
from kronpress.truncate.judge import Judge
from kronpress.truncate.repair import Repair
from kronpress.validation import parse_named

_JUDGED = 8192  # tokens of the training text on which a repair must be better


@STEPS.enroll
class Truncate(Step):
    """Keep some of the blocks, as they are, and leave out the others; the result is a plain model.

    Attributes:
        keep: how many blocks stay.
        blocks: which: a list of them, counted from 0, or a way to choose: by their places (`alt`, `distil`, `3b3t`,
            `6b`, `6t`, `3l`) or by what is measured on the training text (`influence`, `greedy`).
        repair: let the blocks that stay make up for the others, without training: `true`, or its fields. The repaired
            weights are kept where they lose less on held-out text of the training text.
    """

    kind: ClassVar[str] = "truncate"
    keep: int | None = Field(default=None, ge=1)
    blocks: SerializeAsAny[Choice] = Alternate()
    repair: Repair | None = None

    @field_validator("blocks", mode="before")
    @classmethod
    def _chosen(cls, value: Any) -> Choice:
        if isinstance(value, list | tuple):
            return Listed(blocks=tuple(value))
        choice: Choice = parse_named(value, CHOICES, key="blocks")
        return choice

    @field_validator("repair", mode="before")
    @classmethod
    def _wanted(cls, value: Any) -> Any:
        return {True: Repair(), False: None}[value] if isinstance(value, bool) else value

    def needs(self) -> Needs:
        """Return whether text is read; the whole model is the student before it is changed."""
        return Needs(teacher=False, text=self.blocks.reads_text or self.repair is not None)

    def check(self, bench: Workbench) -> None:
        """Check that the model has the blocks, and the text a window."""
        self.blocks.check(bench, keep=self.keep)
        if self.repair is not None:
            self.repair.require_possible(bench.student)
            apart(bench, judged=1, fitted=1)
        if not self.blocks.reads_text:
            keep_blocks(sharing(bench.student), self.blocks.choose(bench, keep=self.keep).kept)

    def foreseen(self, student: PreTrainedModel) -> PreTrainedModel:
        """Return the first so many blocks."""
        shortened = sharing(student)
        cut_blocks(shortened, range(self.blocks.number(self.keep, student)))
        return shortened

    def run(self, bench: Workbench) -> TruncateRecord:
        """Choose the blocks, and shorten the student to them."""
        model = bench.student
        if self.repair is not None:  # whatever earlier steps have made of the model that was checked
            self.repair.require_possible(model)
        settle_ties(model)
        depth, whole = depth_of(model), sharing(model)
        chosen = self.blocks.choose(bench, keep=self.keep)
        keep_blocks(model, chosen.kept)
        repair = None if self.repair is None else self._repaired(bench, whole, chosen.kept, repair=self.repair)
        model = adopt(bench.student)
        method = {"blocks": self.blocks.settings(), "repair": self.repair and self.repair.model_dump(mode="json")}
        return TruncateRecord(
            method=method,
            depth=depth,
            kept=tuple(chosen.kept),
            parameters=stored_numbers(model),
            measure=chosen.measure,
            measured=tuple(chosen.measured),
            repair=repair,
        )

    def _repaired(
        self, bench: Workbench, whole: PreTrainedModel, kept: Sequence[int], *, repair: Repair
    ) -> RepairMeasure:
        """Repair the student where that helps, and return what it loses without and with it."""
        judged, fitted = apart(bench, judged=_JUDGED, fitted=repair.tokens)
        judge, repaired = Judge.of(whole, judged), sharing(bench.student)
        repair.apply(repaired, whole, kept, windows=fitted)
        measured = RepairMeasure(judge.loss(bench.student), judge.loss(repaired))
        if measured.repaired < measured.without:
            bench.student = repaired
        return measured
