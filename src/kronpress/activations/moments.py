"""Second moments of activations, gathered while a text streams through a model."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kronpress.precision import exact_bfloat16_products

_STRIPES = 4


class Moments:
    """Second moments of inputs h and targets t, accumulated in float64 whatever autocast does.

    With `centered` the means are taken out, which is a least-squares fit with an intercept.
    """

    def __init__(self, inputs: int, targets: int, *, centered: bool, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.centered, self.count, self._stripe = centered, 0, -(-inputs // _STRIPES)
        self.second, self.cross = zeros(inputs, inputs), zeros(targets, inputs)
        self.inputs, self.targets, self.energy = zeros(inputs), zeros(targets), zeros()

    def add(self, inputs: Float[Tensor, "tokens n"], targets: Float[Tensor, "tokens out"]) -> None:
        """Take in a batch."""
        fast = exact_bfloat16_products() if inputs.dtype == torch.bfloat16 else nullcontext()
        with torch.autocast(inputs.device.type, enabled=False):
            h, t = inputs.float(), targets.float()
            with fast:
                for start in range(0, h.shape[1], self._stripe):  # the upper triangle, the lower being its mirror
                    stripe = slice(start, start + self._stripe)
                    self.second[stripe, start:] += h[:, stripe].T @ h[:, start:]
            self.cross += t.T @ h
            self.inputs += h.sum(0, dtype=torch.float64)
            self.targets += t.sum(0, dtype=torch.float64)
            self.energy += t.square().sum(dtype=torch.float64)
        self.count += len(h)

    def normal_equations(self) -> tuple[Float[Tensor, "n n"], Float[Tensor, "out n"]]:
        """Return E[h hᵀ] and E[t hᵀ], about the means if centered.

        They lie in the memory of the sums, which are given up: this is asked once, after all batches.
        """
        self._mirror()
        second, cross = self.second.div_(self.count), self.cross.div_(self.count)
        del self.second, self.cross
        if self.centered:
            mean_h, mean_t = self.inputs / self.count, self.targets / self.count
            for rows, mean in zip(second.split(self._stripe), mean_h.split(self._stripe), strict=True):
                rows -= mean.outer(mean_h)
            cross -= mean_t.outer(mean_h)
        return second, cross

    def _mirror(self) -> None:
        """Make the lower triangle what the upper one is, in place: such a matrix may be half a gigabyte."""
        for start in range(0, len(self.second), self._stripe):
            rows = self.second[start : start + self._stripe, start:]
            corner = rows[:, : self._stripe]
            corner.copy_(corner.triu() + corner.triu(1).T)
            self.second[start + self._stripe :, start : start + self._stripe] = rows[:, self._stripe :].T

    def target_energy(self) -> float:
        """Return E‖t‖², about the mean if centered."""
        energy = self.energy / self.count
        return float(energy - (self.targets / self.count).square().sum() if self.centered else energy)

    def intercept(self, weight: Float[Tensor, "out keep"], *, kept: Int[Tensor, " keep"]) -> Float[Tensor, " out"]:
        """Return the bias that goes with `weight` on the kept inputs: mean target minus weight times mean input."""
        return (self.targets - weight @ self.inputs[kept]) / self.count
