"""What happens to the output of a feed-forward block before it is added to the block's input."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from kronpress.families.layout import Attention, FeedForward

_SMALLEST = 1e-12


@dataclass(frozen=True)
class Branch:
    """The norm behind a down-projection W, as a least-squares fit of W sees it.

    In most families there is none: the output z = W h is added as it is, and a fit makes z what the block must add.

    Gemma and OLMo 2 add N(z) = gain ⊙ z / size(z), with the root mean square for the size. Only the direction of z
    counts there, so the fit makes z / size(z) that of the dense model, token by token. With the size held at what the
    dense weight gives on the same inputs, that is a linear problem again, with the inputs h / size. The fit does
    not aim at the sum behind the norm, to make up for what earlier blocks lost: the gains of one such norm lie between
    0.01 and 150 (Gemma 3), and dividing by the small ones lets numbers that hardly count turn the others' direction.

    Attributes:
        norm: the norm, None where there is none.
    """

    norm: nn.Module | None

    @classmethod
    def of(cls, model: nn.Module, block: FeedForward | Attention) -> Branch:
        """Return that of a feed-forward block, or of an attention."""
        return cls(None if block.branch_norm is None else model.get_submodule(block.branch_norm))

    def added(self, output: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Return what the block adds to its input, of what leaves the down-projection."""
        return output if self.norm is None else self.norm(output)

    def aim(
        self, *, total: Float[Tensor, "*batch dim"], output: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "*batch dim"]:
        """Return what to keep of the dense model: the sum that it adds its block's output to, or its direction."""
        return total if self.norm is None else output.float() / _size(output)

    def target(
        self, aim: Float[Tensor, "*batch dim"], *, bypass: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "*batch dim"]:
        """Return what the down-projection should put out where `bypass` goes around the block."""
        return aim - bypass if self.norm is None else aim

    def inputs(
        self, neurons: Float[Tensor, "*batch n"], *, output: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "*batch n"]:
        """Return the inputs of the fit, of hidden neurons and what the dense weight makes of them."""
        return neurons if self.norm is None else neurons.float() / _size(output)


def _size(output: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch 1"]:
    return output.float().square().mean(-1, keepdim=True).sqrt().clamp_min(_SMALLEST)
