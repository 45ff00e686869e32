"""One feed-forward block on calibration text: its hidden neurons, and what leaves it with some of them."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.families import FeedForward
from kronpress.prune.readout import AddedStatistic, Kept


class FeedForwardStatistic(AddedStatistic):
    """Hidden neurons of a block, what bypasses them, and the moments to fit a down-projection with."""

    turn: ClassVar[int] = 2

    def __init__(
        self, model: PreTrainedModel, block: FeedForward, *, curvature: Float[Tensor, "out out"] | None = None
    ) -> None:
        super().__init__(model, block, curvature=curvature)
        self.block = block
        self._neurons: list[Float[Tensor, "windows tokens n"]] = []
        self._bypass: list[Float[Tensor, "windows tokens out"]] = []

    def took_in(self, neurons: Float[Tensor, "windows tokens n"], bypass: Float[Tensor, "windows tokens out"]) -> None:
        """Keep them, for `leaving`."""
        self._neurons.append(self._park(neurons))
        self._bypass.append(self._park(bypass))

    @torch.no_grad()
    def leaving(self, kept: Kept) -> list[Float[Tensor, "windows tokens out"]]:
        """Return what leaves the block with the kept neurons alone."""
        weight = kept.weight.to(self._neurons[0].dtype)
        hidden = []
        for neurons, bypass in zip(self._neurons, self._bypass, strict=True):
            total = bypass + self.branch.added((neurons[..., kept.neurons] @ weight.T).float())
            total = total if kept.bias is None else total + kept.bias
            hidden.append(total if self.norm is None else self.norm(total))
        return hidden
