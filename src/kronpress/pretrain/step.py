"""The pretrain step of a recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field, model_validator
from transformers import PreTrainedModel, set_seed

from kronpress.activations.head import head_of
from kronpress.checkpoint import adopt
from kronpress.checkpoint.fresh import redraw
from kronpress.errors import KronpressError
from kronpress.layers import pack
from kronpress.losses import CrossEntropy, Loss
from kronpress.quantizers import let_learn
from kronpress.records import TrainingRecord
from kronpress.step import STEPS, Needs, Workbench
from kronpress.train.language import LanguageStep
from kronpress.train.language_objective import Distillation


@STEPS.enroll
class Pretrain(LanguageStep):
    """Train the student as a language model on the recipe's text alone; no teacher is held in memory.

    A decoder predicts the next token, an encoder guesses masked tokens.

    Attributes:
        start: `weights`: from those that the student has, as a truncated model from the blocks that stayed; or
            `random`: from random ones of its configuration, factors of structured layers included.
        smoothing: share of the target probability that is spread evenly over all tokens (label smoothing).
    """

    kind: ClassVar[str] = "pretrain"
    start: Literal["weights", "random"] = "weights"
    smoothing: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _has_something_to_adapt(self) -> Pretrain:
        if self.adapters is not None and self.start == "random":
            raise KronpressError(
                "adapters would leave random numbers as they are; take start: weights, or leave adapters out"
            )
        return self

    def needs(self) -> Needs:
        """Return that text is read, and no teacher."""
        return replace(super().needs(), teacher=False)

    def check(self, bench: Workbench) -> None:
        """Check that the model predicts tokens, and that the text has a window."""
        super().check(bench)
        _require_head(bench.student)
        self.first_texts(bench, self._losses())

    def run(self, bench: Workbench) -> TrainingRecord:
        """Train, going on from the last whole checkpoint in the step's folder."""
        _require_head(bench.student)
        if self.start == "random":
            set_seed(bench.seed)
            pack(bench.student)
            redraw(adopt(bench.student))
        if self.adapters is None:
            let_learn(bench.student)
        losses = self._losses()
        objective = Distillation(bench.student, None, losses)
        with self.prepared(*objective.models):
            return self.train(bench, objective, self.texts(bench, losses))

    def _losses(self) -> dict[str, Loss]:
        return {CrossEntropy.kind: CrossEntropy(smoothing=self.smoothing)}


def _require_head(model: PreTrainedModel) -> None:
    if head_of(model) is None:
        raise KronpressError(
            f"{type(model).__name__} has no output head, so it predicts no tokens; pretrain one that has"
        )
