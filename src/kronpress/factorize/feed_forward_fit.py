"""One feed-forward block on calibration text: which neurons to keep, and the weight that reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.activations import BlockStream, Moments
from kronpress.errors import KronpressError
from kronpress.families import FeedForward
from kronpress.layers import bias_of, weight_of
from kronpress.linalg import eliminate, refit


@dataclass(frozen=True)
class Fit:
    """The kept neurons, the down-projection that reads them, and √(E‖t − output‖² / E‖t‖²) on the text."""

    kept: Int[Tensor, " keep"]
    weight: Float[Tensor, "out keep"]
    bias: Float[Tensor, " out"] | None
    relative_error: float


@dataclass
class Observed:
    """What was seen of a block: hidden neurons, what bypasses them, and the moments to fit with."""

    down: nn.Module
    norm: nn.Module | None
    moments: Moments
    neurons: list[Float[Tensor, "windows tokens n"]] = field(default_factory=list)
    bypass: list[Float[Tensor, "windows tokens out"]] = field(default_factory=list)

    def solve(self, *, keep: int, ridge: float, rounds: int) -> Fit:
        """Choose `keep` neurons and fit the weight, by ridge regression towards the dense one."""
        moment, cross = self.moments.normal_equations()
        regularized, strength = positive_definite(moment, ridge=ridge)
        towards = cross + strength * weight_of(self.down).double()
        kept = eliminate(regularized, towards, keep=keep, rounds=rounds)
        weight = refit(regularized, towards, kept=kept)
        energy = self.moments.target_energy()
        explained = 2 * (weight * cross[:, kept]).sum() - (weight @ moment[kept][:, kept] * weight).sum()
        missed = max(energy - float(explained), 0.0)
        error = (missed / energy) ** 0.5 if energy > 0 else 0.0  # a block may add nothing
        dtype = weight_of(self.down).dtype
        bias = self.moments.intercept(weight, kept=kept).to(dtype) if self.moments.centered else None
        return Fit(kept, weight.to(dtype), bias, error)

    @torch.no_grad()
    def hidden_after(self, fit: Fit) -> list[Float[Tensor, "windows tokens out"]]:
        """Return what leaves the block with the fit in place."""
        weight = fit.weight.to(self.neurons[0].dtype)
        hidden = []
        for neurons, bypass in zip(self.neurons, self.bypass, strict=True):
            total = bypass + (neurons[..., fit.kept] @ weight.T).float()
            total = total if fit.bias is None else total + fit.bias
            hidden.append(total if self.norm is None else self.norm(total))
        return hidden


def positive_definite(moment: Tensor, *, ridge: float) -> tuple[Tensor, float]:
    """Add the ridge to the diagonal, ten times as much until rounding no longer shows."""
    mean = float(moment.diagonal().mean().clamp_min(1e-30))
    if not torch.isfinite(moment).all():
        raise KronpressError("the model's activations on the calibration text are not finite; are its weights sound?")
    while True:
        regularized = moment + ridge * mean * torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
        if not torch.linalg.cholesky_ex(regularized).info:
            return regularized, ridge * mean
        ridge *= 10


@torch.no_grad()
def observe(model: PreTrainedModel, block: FeedForward, *, dense: BlockStream, compressed: BlockStream) -> Observed:
    """Run a block that is still dense on both streams, moving the dense one past it.

    The target is what the block must add to the compressed stream for its residual sum to be the dense one's.
    """
    closing = compressed.layout.family.closing_norm
    down = model.get_submodule(block.down)
    norm = model.get_submodule(f"{compressed.layout.block_paths[block.block]}.{closing}") if closing else None
    out_features, width = weight_of(down).shape
    moments = Moments(width, out_features, centered=bias_of(down) is not None, device=weight_of(down).device)
    observed = Observed(down, norm, moments)
    with _recording(down, norm) as seen:
        sums = []
        for index, output in dense.outputs(model, block=block.block):
            dense.hidden[index] = output
            sums.append(seen.get("sum", output).float())
        for index, output in compressed.outputs(model, block=block.block):
            bypass = seen.get("sum", output).float() - seen["added"].float()
            moments.add(seen["neurons"].flatten(0, -2), (sums[index] - bypass).flatten(0, -2))
            observed.neurons.append(seen["neurons"])
            observed.bypass.append(bypass)
    return observed


@contextmanager
def _recording(down: nn.Module, norm: nn.Module | None) -> Iterator[dict[str, Tensor]]:
    seen: dict[str, Tensor] = {}
    handles = [down.register_forward_hook(lambda _, args, out: seen.update(neurons=args[0], added=out))]
    if norm is not None:
        handles.append(norm.register_forward_pre_hook(lambda _, args: seen.update(sum=args[0])))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
