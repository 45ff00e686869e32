"""Calibrated pruning: keep the hidden neurons that matter on real text and re-solve what reads them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from transformers import PreTrainedModel

from kronpress.activations.stream import BlockStream
from kronpress.bars import Bar
from kronpress.errors import KronpressError
from kronpress.factorize.feed_forward_fit import Fit, observe
from kronpress.factorize.initialization import INITIALIZATIONS, Initialization
from kronpress.factorize.request import Request
from kronpress.families import FeedForward, Layout, layout, replace_module, window_of
from kronpress.layers import KroneckerLinear, StructuredLayer, bias_of, narrowed, weight_of
from kronpress.linalg import KroneckerSum, divisors
from kronpress.step import Workbench


@INITIALIZATIONS.register("calibrated_pruning")
class CalibratedPruning(Initialization):
    """Keep a share of each feed-forward block's hidden neurons, chosen on text; re-solve the down-projection.

    The text streams through the dense and the compressed model together, block by block. The new
    down-projection predicts, from the kept neurons of the *compressed* stream, what the block must add for
    the stream to leave the block as it does in the dense model, so that each block also repairs what
    those before it lost. Neurons go by the optimal-brain-surgeon cost (see `linalg.eliminate`), the weight
    is a ridge regression towards the dense one (MoDeGPT's Nyström step is the case without a stream).

    Attributes:
        keep: share of the hidden neurons to keep.
        form: `narrow`, a plain narrower block that opens without kronpress; or `kronecker`, the same
            function as up = [1, 0]ᵀ ⊗ A, down = [1, ε] ⊗ A' over all hidden neurons (permuted), whose
            second half starts silent but trains.
        tokens: calibration tokens, from the start of the training text.
        window: tokens per window; by default 512, or as many as the model sees.
        ridge: regularization, relative to the mean second moment of a hidden neuron.
        rounds: shares in which neurons are eliminated, re-solving in between.
        epsilon: ε of the kronecker form.
    """

    kind: ClassVar[str] = "calibrated_pruning"
    keep: float = Field(default=0.5, gt=0, lt=1)
    form: Literal["narrow", "kronecker"] = "narrow"
    tokens: int = Field(default=32768, ge=1)
    window: int | None = Field(default=None, ge=2)
    ridge: float = Field(default=1e-5, gt=0)
    rounds: int = Field(default=32, ge=1)
    epsilon: float = 0.1

    def unread(self) -> dict[str, str]:
        """Return ε of the other form."""
        remedy = "a narrow block has no silent half: leave it out, or set form: kronecker"
        return {} if self.form == "kronecker" else {"epsilon": remedy}

    def check(self, bench: Workbench, request: Request) -> None:
        """Check the request, and that the text has a window."""
        self._kept(bench.student, layout(bench.student), request)
        bench.training_windows(size=self._window(bench.student), tokens=self._window(bench.student))

    def apply(self, bench: Workbench, request: Request) -> list[dict[str, Any]]:
        """Prune every feed-forward block of the student."""
        model = bench.student
        plan = layout(model)
        kept = self._kept(model, plan, request)
        windows = bench.training_windows(size=self._window(model), tokens=self.tokens)
        dense, compressed = BlockStream.begin(model, windows), BlockStream.begin(model, windows)
        reports = []
        for block in Bar(plan.feed_forwards, desc="calibrated pruning", unit="block"):
            observed = observe(model, block, dense=dense, compressed=compressed)
            fit = observed.solve(keep=kept, ridge=self.ridge, rounds=self.rounds)
            before = _count(model, block)
            self._install(model, block, fit)
            compressed.hidden = observed.hidden_after(fit)
            reports.append(_report(block, fit, before=before, after=_count(model, block)))
        if self.form == "narrow":
            setattr(model.config, plan.family.width_key, kept)
        return reports

    def _window(self, model: PreTrainedModel) -> int:
        return window_of(model, self.window)

    def settings(self, model: PreTrainedModel) -> dict[str, Any]:
        """Return its fields, with the window that this model gets."""
        return super().settings(model) | {"window": self._window(model)}

    def _kept(self, model: PreTrainedModel, plan: Layout, request: Request) -> int:
        if request.sites != "feed_forward" or request.skip_blocks or request.blocks != "all":
            raise KronpressError(
                "calibrated_pruning prunes the feed-forward blocks as wholes and all alike: "
                "set sites: feed_forward and leave blocks and skip_blocks out"
            )
        for path in (path for block in plan.feed_forwards for path in (*block.expanding, block.down)):
            if isinstance(model.get_submodule(path), StructuredLayer):
                raise KronpressError(f"{path} has been factorized already; prune first")
        width = weight_of(model.get_submodule(plan.feed_forwards[0].down)).shape[1]
        kept = round(self.keep * width)
        if kept < 1 or (self.form == "kronecker" and width % kept):
            choices = ", ".join(f"1/{d}" for d in divisors(width)[1:6])
            raise KronpressError(
                f"keep: {self.keep} of {width} hidden neurons; the form {self.form} takes {choices}, …"
            )
        return kept

    def _install(self, model: PreTrainedModel, block: FeedForward, fit: Fit) -> None:
        build = self._narrow if self.form == "narrow" else self._kronecker
        for path in (*block.expanding, block.down):
            layer = model.get_submodule(path)
            replace_module(model, path, module=build(layer, path, block, fit))

    def _narrow(self, layer: nn.Module, path: str, block: FeedForward, fit: Fit) -> nn.Module:
        if path == block.down:
            return narrowed(layer, fit.weight, bias=fit.bias)
        bias = bias_of(layer)
        return narrowed(layer, weight_of(layer)[fit.kept], bias=None if bias is None else bias[fit.kept])

    def _kronecker(self, layer: nn.Module, path: str, block: FeedForward, fit: Fit) -> nn.Module:
        weight, bias = weight_of(layer), bias_of(layer)
        copies = (weight.shape[1] if path == block.down else len(weight)) // len(fit.kept)
        mixing = torch.zeros(copies, dtype=weight.dtype, device=weight.device)
        mixing[1:] = {block.down: self.epsilon, block.up: 0.0}.get(path, 1.0)
        mixing[0] = 1.0
        if path == block.down:
            return KroneckerLinear.of(KroneckerSum(mixing[None, None], fit.weight[None]), bias=fit.bias)
        if bias is not None:
            bias = mixing.outer(bias[fit.kept]).flatten()
        return KroneckerLinear.of(KroneckerSum(mixing[None, :, None], weight[fit.kept][None]), bias=bias)


def _count(model: PreTrainedModel, block: FeedForward) -> int:
    paths = (*block.expanding, block.down)
    return sum(p.numel() for path in paths for p in model.get_submodule(path).parameters())


def _report(block: FeedForward, fit: Fit, *, before: int, after: int) -> dict[str, Any]:
    return {
        "path": block.down.rpartition(".")[0],
        "role": "feed_forward",
        "block": block.block,
        "parameters_before": before,
        "parameters_after": after,
        "relative_error": fit.relative_error,
        "layer": f"{len(fit.kept)} hidden neurons",
    }
