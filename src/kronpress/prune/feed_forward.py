"""One feed-forward block on calibration text: its hidden neurons, and what the block must add to the stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.activations import Moments, Statistic
from kronpress.families import Branch, FeedForward
from kronpress.layers import bias_of, weight_of


@dataclass(frozen=True)
class Kept:
    """The kept neurons, the down-projection that reads them, and √(E‖t − output‖² / E‖t‖²) on the text."""

    neurons: Int[Tensor, " keep"]
    weight: Float[Tensor, "out keep"]
    bias: Float[Tensor, " out"] | None
    relative_error: float


class FeedForwardStatistic(Statistic):
    """Hidden neurons of a block, what bypasses them, and the moments to fit a down-projection with.

    The target is what the block must add to the compressed stream for its residual sum to be the dense one's; where a
    norm follows, see `Branch`.
    """

    def __init__(self, model: PreTrainedModel, block: FeedForward) -> None:
        self.block, self.down = block, model.get_submodule(block.down)
        self.norm = model.get_submodule(block.closing_norm) if block.closing_norm else None
        self.branch, self.weight = Branch.of(model, block), weight_of(self.down)
        assert self.branch.norm is None or bias_of(self.down) is None, "a bias before a norm would be no intercept"
        out_features, width = self.weight.shape
        centered = bias_of(self.down) is not None
        self.moments = Moments(width, out_features, centered=centered, device=self.weight.device)
        self._last: dict[str, Tensor] = {}
        self._aims: list[Tensor] = []
        self._neurons: list[Float[Tensor, "windows tokens n"]] = []
        self._bypass: list[Float[Tensor, "windows tokens out"]] = []

    @contextmanager
    def watching(self, model: PreTrainedModel) -> Iterator[None]:
        """Look at what enters and leaves the down-projection, and at what enters the closing norm."""
        last = self._last
        handles = [self.down.register_forward_hook(lambda _, args, out: last.update(neurons=args[0], added=out))]
        if self.norm is not None:
            handles.append(self.norm.register_forward_pre_hook(lambda _, args: last.update(sum=args[0])))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def after_dense(self, index: int, output: Float[Tensor, "windows tokens dim"]) -> None:
        """Keep what the dense stream's block comes to."""
        total, added = self._last.get("sum", output).float(), self._last["added"].view_as(output)
        self._aims.append(self.branch.aim(total=total, output=added))

    def after_compressed(self, index: int, output: Float[Tensor, "windows tokens dim"]) -> None:
        """Take in the hidden neurons and the target."""
        neurons, added = (self._last[name].view(*output.shape[:-1], -1) for name in ("neurons", "added"))
        bypass = self._last.get("sum", output).float() - self.branch.added(added).float()
        inputs, target = self.branch.inputs(neurons, output=added), self.branch.target(self._aims[index], bypass=bypass)
        self.moments.add(inputs.flatten(0, -2), target.flatten(0, -2))
        self._neurons.append(neurons)
        self._bypass.append(bypass)

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
