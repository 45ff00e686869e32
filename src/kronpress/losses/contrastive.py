"""Telling tokens of a sentence apart as the teacher does."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from kronpress.activations.trace import Reading, Trace
from kronpress.losses.loss import LOSSES
from kronpress.losses.states import StateLoss, States, mean_of


@LOSSES.enroll
class TokenContrast(StateLoss):
    """The mean over tokens i of -log softmax_j(cos(s_i, t_j)/τ) at j = i, of the last blocks' vectors s and t.

    Token-level contrastive distillation of QuantGPT (Tao et al., 2022): a token's own vector in the teacher is to be
    nearer than those of the sentence's other tokens. These are the teacher's, and of the batch alone; those that the
    paper keeps from earlier steps are in the loss `contrastive_bank`. It is positive even where the student equals the
    teacher.

    Attributes:
        temperature: τ.
    """

    kind: ClassVar[str] = "contrastive"
    vanishes: ClassVar[bool] = False
    temperature: float = Field(default=0.1, gt=0)

    @property
    def reads(self) -> frozenset[Reading]:
        """Which activations it needs."""
        return frozenset({"blocks"})

    def pairs(self, student: int, teacher: int) -> list[tuple[int, int]]:
        """Return the pair of last blocks."""
        return [(student - 1, teacher - 1)]

    def layers_of(self, trace: Trace) -> list[Float[Tensor, "batch tokens dim"]]:
        """Return what the blocks gave."""
        return trace.blocks

    def between(self, states: States, *, seen: Bool[Tensor, "batch tokens"]) -> Float[Tensor, ""]:
        """Return the mean cross-entropy."""
        ((student, teacher),) = states
        ours, theirs = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
        scores = ours @ theirs.transpose(1, 2) / self.temperature
        scores = scores.masked_fill(~seen[:, None, :], torch.finfo(scores.dtype).min)
        return mean_of(-scores.log_softmax(dim=-1).diagonal(dim1=1, dim2=2)[seen])
