"""Telling tokens of a sentence apart from what is remembered of the others."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kronpress.activations.trace import Reading, Sizes, Trace
from kronpress.errors import KronpressError
from kronpress.losses.contrastive import TokenContrast
from kronpress.losses.loss import LOSSES
from kronpress.losses.states import mean_of


@LOSSES.enroll
class TokenBankContrast(TokenContrast):
    """The mean over tokens i of -log(p/(p + Σⱼ nⱼ)), p = exp(cos(sᵢ, tᵢ)/τ) and nⱼ = exp(cos(sᵢ, bⱼ)/τ).

    Token-level contrastive distillation with the memory bank of QuantGPT (Tao et al., 2022): s and t are a token's
    vectors behind the last blocks of student and teacher, and bⱼ is what a bank remembers of the other tokens of the
    sentence. For each id of the vocabulary it holds b ← m·b + (1 - m)·v, updated before the loss with the mean v of the
    id's vectors of length 1 in the batch; an id that is met for the first time begins with its v. Places with the same
    id as token i are no others. A gradient reaches the student by sᵢ alone. The formula for one token and the update
    are our reading of the paper, which was not at hand in full.

    Attributes:
        keeps: whose vectors are remembered, those of the `student` (the paper's) or of the `teacher`.
        momentum: m.
        max_bytes: what the bank may take of the memory, and of each checkpoint of the training: 4·dim + 1 bytes for
            each id of the student's vocabulary, dim being the teacher's width.
    """

    kind: ClassVar[str] = "contrastive_bank"
    keeps: Literal["student", "teacher"] = "student"
    momentum: float = Field(default=0.5, ge=0, lt=1)
    max_bytes: int = Field(default=2**30, ge=1)

    @property
    def reads_of_student(self) -> frozenset[Reading]:
        """The ids, which say whose vectors are whose."""
        return frozenset({"tokens"})

    def projection(self, student: Sizes, teacher: Sizes) -> nn.Module | None:
        """Return the bank, with the map if one is asked for.

        Raises:
            KronpressError: the bank would be too large, or the models have other widths and no map.
        """
        maps, needed = super().projection(student, teacher), student.vocabulary * (4 * teacher.dim + 1)
        if needed > self.max_bytes:
            raise KronpressError(
                f"the bank of the loss '{self.kind}' takes {needed:,} bytes, for {student.vocabulary:,} tokens of "
                f"{teacher.dim} numbers, and max_bytes is {self.max_bytes:,}; raise it, or use the loss contrastive, "
                "which keeps none"
            )
        return TokenBank(student.vocabulary, teacher.dim, maps)

    def __call__(
        self, student: Trace, teacher: Trace, *, seen: Bool[Tensor, "batch tokens"], projection: nn.Module | None
    ) -> Float[Tensor, ""]:
        """Update the bank and return the loss of a batch."""
        tokens = student.tokens
        if tokens is None or not isinstance(projection, TokenBank):
            raise ValueError(f"the loss '{self.kind}' saw no tokens or has no bank; let an Objective call it")
        ((student_states, teacher_states),) = self.states_of(student, teacher, maps=projection.maps)
        ours, theirs = F.normalize(student_states, dim=-1), F.normalize(teacher_states, dim=-1)
        kept = ours if self.keeps == "student" else theirs
        others = F.normalize(projection.updated(tokens, kept, seen=seen, momentum=self.momentum), dim=-1)
        hidden = ~seen[:, None, :] | (tokens[:, :, None] == tokens[:, None, :])
        scores = ours @ others.transpose(1, 2) / self.temperature
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        own = torch.linalg.vecdot(ours, theirs)[..., None] / self.temperature
        return mean_of(-torch.cat([own, scores], dim=-1).log_softmax(dim=-1)[..., 0][seen])


class TokenBank(nn.Module):
    """A remembered vector for each id of a vocabulary; part of a training's checkpoints, and not trained.

    Attributes:
        maps: from the student's width to the teacher's; None where there are none.
        vectors: what is remembered, zeros at first, (vocabulary, dim).
        known: which ids have been met.
    """

    vectors: Tensor
    known: Tensor

    def __init__(self, vocabulary: int, dim: int, maps: nn.Module | None) -> None:
        super().__init__()
        self.maps = maps
        self.register_buffer("vectors", torch.zeros(vocabulary, dim))
        self.register_buffer("known", torch.zeros(vocabulary, dtype=torch.bool))

    @torch.no_grad()
    def updated(
        self,
        tokens: Int[Tensor, "batch tokens"],
        vectors: Float[Tensor, "batch tokens dim"],
        *,
        seen: Bool[Tensor, "batch tokens"],
        momentum: float,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Return what is remembered of each seen token after this batch, and zeros for others.

        It is kept in training alone, so that a validation changes nothing.
        """
        ids, places = tokens[seen].unique(return_inverse=True)
        sums = vectors.new_zeros(len(ids), vectors.shape[-1]).index_add_(0, places, vectors[seen])
        means = sums / places.bincount(minlength=len(ids))[:, None]
        moved = momentum * self.vectors[ids] + (1 - momentum) * means
        after = torch.where(self.known[ids][:, None], moved, means)
        if self.training:
            self.vectors[ids], self.known[ids] = after, True
        remembered = torch.zeros_like(vectors)
        remembered[seen] = after[places]
        return remembered
