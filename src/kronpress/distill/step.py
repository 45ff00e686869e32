"""The distill step of a recipe."""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from kronpress.checkpoint import load
from kronpress.distill.attention import training_attention
from kronpress.distill.batches import MaskedTokens, NextToken, epochs_of
from kronpress.distill.losses import LOSSES, LogitLoss, Loss
from kronpress.distill.objective import Distillation, head_of
from kronpress.distill.training import TrainingStep
from kronpress.errors import KronpressError
from kronpress.families import is_causal
from kronpress.precision import has_fast_bfloat16
from kronpress.step import STEPS, Workbench
from kronpress.validation import parse_named


@STEPS.register("distill")
class Distill(TrainingStep):
    """Train the student to answer like the teacher, on the recipe's training text.

    A decoder predicts the next token; an encoder with a masked-language-model head guesses masked tokens.

    Attributes:
        tokens: training tokens; the text is read again, in another order, where it is shorter.
        window: tokens per training window; the text is packed, so that no token is padding.
        losses: what is minimized: names, or labels of your own, with the fields of the loss (`name` where the label is
            another, `weight`); a number alone is the weight.
        teacher: another model than the recipe's to learn from, a folder or hub id.
        validation_windows: of held-out text, where `validate_every` asks for them.
    """

    kind: ClassVar[str] = "distill"
    tokens: int = Field(ge=1)
    window: int = Field(default=512, ge=2)
    losses: dict[str, SerializeAsAny[Loss]] = Field(default={"logits": LOSSES["logits"]()}, min_length=1)
    teacher: str | None = None
    validation_windows: int = Field(default=16, ge=1)

    @field_validator("losses", mode="before")
    @classmethod
    def _named(cls, value: Any) -> dict[str, Loss]:
        return parse_losses(value)

    def check(self, bench: Workbench) -> None:
        """Check that models, losses and text fit together."""
        bench.training_windows(size=self.window, tokens=self.window)
        teacher = self._teacher(bench)
        self._check_logits(bench.student, teacher)
        Distillation(bench.student, teacher, self.losses)

    def run(self, bench: Workbench) -> dict[str, Any]:
        """Train, going on from the last whole checkpoint in the step's folder."""
        teacher = self._teacher(bench)
        self._check_logits(bench.student, teacher)
        steps = math.ceil(self.tokens / (self.batch * self.window))
        windows = bench.training_windows(size=self.window)
        order = epochs_of(len(windows), count=steps * self.batch, seed=bench.seed)
        models = [bench.student] if teacher is None else [bench.student, teacher]
        with training_attention(*models):
            return self.train(
                bench,
                Distillation(bench.student, teacher, self.losses),
                data=self._examples(bench, windows, order=order),
                validation=self._validation(bench),
                steps=steps,
                tokens_per_step=self.batch * self.window,
            )

    def _teacher(self, bench: Workbench) -> PreTrainedModel | None:
        """Return a copy of the teacher to compute with, if any loss compares with one."""
        if not any(loss.compares for loss in self.losses.values()):
            return None
        teacher = bench.teacher if self.teacher is None else _on(bench.student.device, load(self.teacher))
        if not has_fast_bfloat16(bench.student.device):
            return teacher
        half: PreTrainedModel = copy.deepcopy(teacher) if self.teacher is None else teacher
        for parameter in half.parameters():  # buffers, such as rotary frequencies, stay precise
            parameter.data = parameter.data.to(torch.bfloat16)
        return half

    def _check_logits(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        names = [name for name, loss in self.losses.items() if isinstance(loss, LogitLoss)]
        for model in (student, teacher):
            if names and model is not None and head_of(model) is None:
                raise KronpressError(
                    f"the loss {names[0]} needs a language-model head, and {type(model).__name__} has none; "
                    f"use losses of layers, such as hidden, or a model with its head"
                )
        if names and teacher is not None:
            ours, theirs = (int(model.config.get_text_config().vocab_size) for model in (student, teacher))
            if ours != theirs:
                raise KronpressError(
                    f"the student has {ours} words and the teacher {theirs}; distillation needs the same vocabulary"
                )

    def _validation(self, bench: Workbench) -> Dataset[dict[str, Tensor]] | None:
        if self.validate_every is None:
            return None
        windows = bench.held_out_windows(size=self.window, count=self.validation_windows)
        return self._examples(bench, windows, order=torch.arange(len(windows)))

    def _examples(
        self, bench: Workbench, windows: Int[Tensor, "windows tokens"], *, order: Int[Tensor, " count"]
    ) -> Dataset[dict[str, Tensor]]:
        if is_causal(bench.student):
            return NextToken(windows, order)
        return MaskedTokens(windows, order, bench.tokenizer, seed=bench.seed)


def _on(device: torch.device, model: PreTrainedModel) -> PreTrainedModel:
    module: torch.nn.Module = model
    module.to(device)
    return model


def parse_losses(value: Any) -> dict[str, Loss]:
    """Read losses as a recipe gives them: a name, or a mapping of labels to fields or weights.

    Raises:
        KronpressError: an unknown loss, or fields that are not its own.
    """
    given = {value: {}} if isinstance(value, str) else value
    if not isinstance(given, dict):
        raise KronpressError(f"losses is {value!r}; give a mapping of {', '.join(LOSSES)} to their fields")
    losses = {}
    for label, fields in given.items():
        known = {"weight": fields} if isinstance(fields, int | float) else fields or {}
        losses[str(label)] = parse_named(known, LOSSES, key=f"losses.{label}", default=str(label))
    return losses
