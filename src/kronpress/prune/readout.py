"""What a matrix must add to the stream on calibration text, and what it reads to do so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.activations import Moments, Statistic, parked
from kronpress.families import Attention, Branch, FeedForward
from kronpress.layers import bias_of, weight_of


@dataclass(frozen=True)
class Kept:
    """The kept inputs of a matrix or their runs, and the weight that reads them.

    Attributes:
        relative_error: √(E‖t − output‖² / E‖t‖²) on the text.
    """

    neurons: Int[Tensor, " keep"]
    weight: Float[Tensor, "out inputs"]
    bias: Float[Tensor, " out"] | None
    relative_error: float

    def to(self, dtype: torch.dtype) -> Kept:
        """Return the same in another number format."""
        return replace(self, weight=self.weight.to(dtype), bias=None if self.bias is None else self.bias.to(dtype))


@dataclass(frozen=True)
class Readout:
    """A least-squares problem: which W and b make W h + b nearest to a target t; all but `dense` in float64.

    Attributes:
        moment: E[h hᵀ], about the means where there is an intercept.
        cross: E[t hᵀ], alike.
        energy: E‖t‖², alike.
        dense: the weight that the model has, as it has it.
        means: of h and of t where there is an intercept, else None.
        curvature: of the loss in the outputs, by which their errors count in a choice of inputs; None: all alike.
    """

    moment: Float[Tensor, "n n"]
    cross: Float[Tensor, "out n"]
    energy: float
    dense: Float[Tensor, "out n"]
    means: tuple[Float[Tensor, " n"], Float[Tensor, " out"]] | None
    curvature: Float[Tensor, "out out"] | None = None

    @classmethod
    def of(
        cls, moments: Moments, dense: Float[Tensor, "out n"], *, curvature: Float[Tensor, "out out"] | None = None
    ) -> Readout:
        """Return the problem that moments pose."""
        means = (moments.inputs / moments.count, moments.targets / moments.count) if moments.centered else None
        return cls(*moments.normal_equations(), moments.target_energy(), dense, means, curvature)

    def turned(self, into: Float[Tensor, "k n"], out: Float[Tensor, "n k"]) -> Readout:
        """Return the problem in the inputs `into` h; `out` is what turns them back, as far as that is possible."""
        means = None if self.means is None else (into @ self.means[0], self.means[1])
        moment, cross = into @ self.moment @ into.T, self.cross @ into.T
        return replace(self, moment=moment, cross=cross, dense=self.dense.double() @ out, means=means)

    def weighed(self, outputs: Float[Tensor, "out n"]) -> Float[Tensor, "out n"]:
        """Return rows whose squared length is that of the outputs as the curvature weighs them."""
        return outputs if self.curvature is None else torch.linalg.cholesky(self.curvature).T @ outputs

    def kept(self, weight: Float[Tensor, "out inputs"], *, inputs: Int[Tensor, " inputs"]) -> Kept:
        """Return a weight on some inputs with its intercept and its error; `neurons` are those inputs."""
        explained = (
            2 * (weight * self.cross[:, inputs]).sum() - (weight @ self.moment[inputs][:, inputs] * weight).sum()
        )
        missed = max(self.energy - float(explained), 0.0)
        error = (missed / self.energy) ** 0.5 if self.energy > 0 else 0.0  # a block may add nothing
        bias = None if self.means is None else self.means[1] - weight @ self.means[0][inputs]
        return Kept(inputs, weight, bias, error)


class AddedStatistic(Statistic):
    """What goes into the matrix at the end of a feed-forward block or an attention, and what it must add.

    The target is what must be added to the compressed stream for the residual sum to be the dense one's; where a norm
    follows, see `Branch`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        block: FeedForward | Attention,
        *,
        curvature: Float[Tensor, "out out"] | None = None,
    ) -> None:
        self.curvature = curvature
        self.adding = model.get_submodule(block.adding)
        self.norm = model.get_submodule(block.closing_norm) if block.closing_norm else None
        self.branch, self.weight = Branch.of(model, block), weight_of(self.adding)
        assert self.branch.norm is None or bias_of(self.adding) is None, "a bias before a norm would be no intercept"
        out_features, width = self.weight.shape
        centered = bias_of(self.adding) is not None
        self.moments = Moments(width, out_features, centered=centered, device=self.weight.device)
        self._last: dict[str, Tensor] = {}
        self._aims: list[Tensor] = []
        self._park = partial(parked, model)

    @contextmanager
    def watching(self, model: PreTrainedModel) -> Iterator[None]:
        """Look at what enters and leaves the matrix, and at what enters the closing norm."""
        last = self._last
        handles = [self.adding.register_forward_hook(lambda _, args, out: last.update(neurons=args[0], added=out))]
        if self.norm is not None:
            handles.append(self.norm.register_forward_pre_hook(lambda _, args: last.update(sum=args[0])))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def after_dense(self, index: int, output: Float[Tensor, "windows tokens dim"]) -> None:
        """Keep what the dense stream comes to."""
        added = self._last["added"].view_as(output)
        self._aims.append(self._park(self.branch.aim(total=self._total(output), output=added)))

    def after_compressed(self, index: int, output: Float[Tensor, "windows tokens dim"]) -> None:
        """Take in the inputs and the target."""
        neurons, added = (self._last[name].view(*output.shape[:-1], -1) for name in ("neurons", "added"))
        bypass = self._total(output) - self.branch.added(added).float()
        inputs, target = self.branch.inputs(neurons, output=added), self.branch.target(self._aims[index], bypass=bypass)
        self.moments.add(inputs.flatten(0, -2), target.flatten(0, -2))
        self.took_in(neurons, bypass)

    def took_in(self, neurons: Float[Tensor, "windows tokens n"], bypass: Float[Tensor, "windows tokens out"]) -> None:
        """Take note of a batch of the compressed stream: the inputs, and what goes around the matrix."""

    def readout(self) -> Readout:
        """Return the problem that the text poses, once."""
        readout = Readout.of(self.moments, self.weight, curvature=self.curvature)
        self._aims.clear()
        self._last.clear()
        return readout

    def _total(self, output: Float[Tensor, "windows tokens dim"]) -> Float[Tensor, "windows tokens dim"]:
        return self._last.get("sum", output).view_as(output).float()
