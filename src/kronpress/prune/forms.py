"""What stands there of a feed-forward block when its hidden neurons are pruned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kronpress.families import FeedForward
from kronpress.layers import FusedLinear, KroneckerLinear, bias_of, narrowed, weight_of
from kronpress.linalg import KroneckerSum, divisors
from kronpress.prune.readout import Kept
from kronpress.registry import Shelf
from kronpress.validation import Checked


class PrunedForm(Checked, ABC):
    """What takes the place of the matrices of a feed-forward block.

    Attributes:
        plain: whether the result is a model of the family, with another width.
    """

    kind: ClassVar[str]
    plain: ClassVar[bool] = False

    @abstractmethod
    def producing(self, layer: nn.Module, kept: Kept, *, block: FeedForward, path: str) -> nn.Module:
        """Return what stands in the place of `layer` at `path`, which produces the hidden neurons of the block."""

    @abstractmethod
    def reading(self, layer: nn.Module, kept: Kept) -> nn.Module:
        """Return what stands in the place of `layer`, the down-projection, which reads the hidden neurons."""

    def allows(self, kept: int, *, width: int) -> bool:
        """Say whether so many of `width` neurons can be kept."""
        return kept >= 1


PRUNED_FORMS: Shelf[type[PrunedForm]] = Shelf("form")


@PRUNED_FORMS.enroll
class Narrow(PrunedForm):
    """A plain narrower block, which opens without kronpress."""

    kind: ClassVar[str] = "narrow"
    plain: ClassVar[bool] = True

    def producing(self, layer: nn.Module, kept: Kept, *, block: FeedForward, path: str) -> nn.Module:
        """Return a dense layer with the rows of the kept neurons, of gate and up alike where one layer is both."""
        bias = bias_of(layer)
        narrow_bias = None if bias is None else block.narrow(bias, kept.neurons)
        return narrowed(layer, block.narrow(weight_of(layer), kept.neurons), bias=narrow_bias)

    def reading(self, layer: nn.Module, kept: Kept) -> nn.Module:
        """Return a dense layer with the weight that was solved for."""
        return narrowed(layer, kept.weight, bias=kept.bias)


@PRUNED_FORMS.enroll
class KroneckerCopies(PrunedForm):
    """The same function as up = [1, 0]ᵀ ⊗ A, down = [1, ε] ⊗ A' over all hidden neurons, permuted.

    The second half starts silent but trains.

    Attributes:
        epsilon: ε.
    """

    kind: ClassVar[str] = "kronecker"
    epsilon: float = 0.1

    def producing(self, layer: nn.Module, kept: Kept, *, block: FeedForward, path: str) -> nn.Module:
        """Return a Kronecker layer whose left factor repeats the kept neurons, or one for each share of a fused one."""
        weight, bias = weight_of(layer), bias_of(layer)
        copies = len(block.split(weight)[0]) // len(kept.neurons)
        mixings = [_mixing(float(share == "gate"), like=weight, copies=copies) for share in block.shares(path)]
        sums = [
            KroneckerSum(mixing[None, :, None], rows[kept.neurons][None])
            for mixing, rows in zip(mixings, block.split(weight), strict=True)
        ]
        if bias is not None:
            shares = zip(mixings, block.split(bias), strict=True)
            bias = block.join([mixing.outer(part[kept.neurons]).flatten() for mixing, part in shares])
        if block.fusion is None:
            return KroneckerLinear.of(sums[0], bias=bias)
        return FusedLinear.of([KroneckerLinear.of(value) for value in sums], bias=bias, runs=block.fusion.runs)

    def reading(self, layer: nn.Module, kept: Kept) -> nn.Module:
        """Return a Kronecker layer whose left factor reads the copies with ε."""
        weight = weight_of(layer)
        mixing = _mixing(self.epsilon, like=weight, copies=weight.shape[1] // len(kept.neurons))
        return KroneckerLinear.of(KroneckerSum(mixing[None, None], kept.weight[None]), bias=kept.bias)

    def allows(self, kept: int, *, width: int) -> bool:
        """Say whether the kept neurons divide all."""
        return kept >= 1 and width % kept == 0


def _mixing(others: float, *, like: Tensor, copies: int) -> Float[Tensor, " copies"]:
    """Return [1, others, others, …]: what stands before the copies of the kept neurons."""
    mixing = torch.full((copies,), others, dtype=like.dtype, device=like.device)
    mixing[0] = 1.0
    return mixing


def fractions_of(width: int) -> str:
    """Return the largest shares of `width` neurons that every form allows."""
    return ", ".join(f"1/{divisor}" for divisor in divisors(width)[1:6])
