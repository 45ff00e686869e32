"""What every quantizer has in common: how latent numbers are put on a grid while a model is trained."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kronpress.errors import KronpressError, shown
from kronpress.layers import Coded, Grid, Groups, InputGrid, Learned, Rule, Scales
from kronpress.layers.grid import Levels
from kronpress.registry import Shelf
from kronpress.validation import Checked

BITS: Mapping[Levels, float] = {
    "int8": 8,
    "int4": 4,
    "int3": 3,
    "int2": 2,
    "uint8": 8,
    "uint4": 4,
    "uint3": 3,
    "uint2": 2,
    "raised2": 2,
    "ternary": 1.58,
    "binary": 1,
    "zero_one": 1,
}
"""What users call the levels of a grid; ternary ones are also meant by 2 bits where a quantizer has no others."""

SMALLEST = 2.0**-24
"""The smallest scale in use: the smallest number of float16, which all formats of scales hold exactly."""

_COARSE = 16  # a number format is too coarse for a scale that it changes by a part of this many

Slope = tuple[Tensor, Tensor]
"""A tensor, and the derivative of each number with respect to it; it broadcasts to the numbers."""


class Quantizer(Checked, Rule):
    """A rule by which numbers are put on a grid; its fields are its hyperparameters.

    Attributes:
        symmetric: the levels that it can do without a shift, those first that a number of bits stands for.
        shifted: likewise, with a shift.
        inputs: whether it rounds inputs with scales of each batch (`dynamic`) or a `stored` one; None if not at all.
        weighs: whether it can weigh errors by the importance of each number.
        keeps: the levels of which it keeps codes and scales that were found by other means; others it finds anew.
        steady: whether codes are the nearest with scales that latent numbers do not change.
    """

    kind: ClassVar[str]
    symmetric: ClassVar[Sequence[Levels]] = ()
    shifted: ClassVar[Sequence[Levels]] = ()
    inputs: ClassVar[Literal["dynamic", "stored"] | None] = None
    weighs: ClassVar[bool] = False
    keeps: ClassVar[Sequence[Levels]] = ()
    steady: ClassVar[bool] = False

    @abstractmethod
    def starts(self, latent: Groups, grid: Grid, start: Coded | None) -> dict[str, Tensor]:
        """Return what is learned beside the latent numbers, as it starts."""

    @abstractmethod
    def codes(self, latent: Groups, grid: Grid, learned: Learned) -> Coded:
        """Return the codes, with scales as the grid stores them; nothing needs a gradient."""

    @abstractmethod
    def slopes(self, latent: Groups, grid: Grid, learned: Learned, *, coded: Coded) -> Iterator[Slope]:
        """Go through what gets a gradient, and the derivative of the values with respect to it."""

    def levels(self, *, shift: bool) -> Sequence[Levels]:
        """Return the levels that it can do with, or without, a shift."""
        return self.shifted if shift else self.symmetric

    def grid(
        self,
        bits: float,
        *,
        group: int | Literal["row", "tensor"] = "row",
        scale: Literal["float16", "bfloat16", "float32"] = "float16",
        shift: bool | None = None,
    ) -> Grid:
        """Return the grid for weights that a number of bits stands for; shift is None for what the quantizer prefers.

        Raises:
            KronpressError: the quantizer can not do that; the message says what can.
        """
        shift = not self.levels(shift=False) if shift is None else shift
        return Grid(levels=self._levels_of(bits, shift=shift), group=group, scale=scale, shift=shift)

    def input_grid(
        self, bits: float, *, group: Literal["row", "tensor"] = "tensor", shift: bool | None = None
    ) -> InputGrid:
        """Return the grid for inputs of layers that a number of bits stands for.

        Raises:
            KronpressError: the quantizer can not do that, or is for weights alone.
        """
        self._require_inputs()
        shift = not self.levels(shift=False) if shift is None else shift
        levels = self._levels_of(bits, shift=shift)
        return InputGrid(levels=levels, group=group, shift=shift, dynamic=self.inputs == "dynamic")

    def require(self, grid: Grid) -> None:
        """Check that the quantizer can put numbers on a grid.

        Raises:
            KronpressError: it can not; the message says what can.
        """
        if grid.levels not in self.levels(shift=grid.shift):
            able = [other.kind for other in _defaults() if grid.levels in other.levels(shift=grid.shift)]
            offer = f"take {_either(able)}" if able else f"no quantizer can; set shift: {str(not grid.shift).lower()}"
            raise KronpressError(f"{self.kind} can not put numbers on {grid.levels} {_shift(grid.shift)}; {offer}")
        if isinstance(grid, InputGrid):
            self._require_inputs()
            if grid.dynamic != (self.inputs == "dynamic"):
                whose = "of each batch" if self.inputs == "dynamic" else "that is stored"
                wanted = str(self.inputs == "dynamic").lower()
                raise KronpressError(f"{self.kind} rounds inputs with a scale {whose}; set dynamic: {wanted}")

    def begin(self, latent: Groups, grid: Grid, start: Coded | None) -> dict[str, Tensor]:
        """Return what is learned beside the latent numbers; `start` holds codes that were found by other means.

        Raises:
            KronpressError: the quantizer can not do this grid, or the numbers have none (NaN, infinity, too large).
        """
        self.require(grid)
        require_finite(latent)
        largest = float(latent.detach().abs().max())
        if not torch.tensor(2 * largest).to(grid.scale_dtype).isfinite():
            raise KronpressError(f"numbers up to {largest:g} need larger scales than {grid.scale}; set scale: bfloat16")
        scale = torch.tensor(largest / max(map(abs, grid.numbers)))
        if (grid.rounded(scale) - scale).abs() > scale / _COARSE:
            raise KronpressError(f"numbers up to {largest:g} need finer scales than {grid.scale}; set scale: bfloat16")
        return self.starts(latent.detach(), grid, start)

    def code(self, latent: Groups, grid: Grid, learned: Learned) -> Coded:
        """Return the codes, with scales as the grid stores them."""
        require_finite(latent)
        with torch.no_grad():
            return self.codes(latent, grid, learned)

    def value(self, latent: Groups, grid: Grid, learned: Learned) -> Groups:
        """Return the numbers that `code` stands for, with the gradients that the quantizer defines."""
        coded = self.code(latent.detach(), grid, learned)
        with torch.no_grad():
            slopes = list(self.slopes(latent, grid, learned, coded=coded))
            values = grid.values(*coded)
        return defined(values, slopes)

    def coded(
        self,
        tensor: Float[Tensor, "*size"],
        grid: Grid,
        *,
        importance: Tensor | None = None,
    ) -> Coded:
        """Return the codes of a tensor, found without training.

        Args:
            tensor: of any shape that the grid can group.
            grid: where the numbers go.
            importance: weights of the squared errors, which broadcast to the tensor: (n,) for one a column.

        Raises:
            KronpressError: as `begin`; or importance is given and the quantizer does not weigh errors.
        """
        groups = grid.groups(tensor.detach().float())
        learned = self.begin(groups, grid, None)
        if importance is None:
            return self.code(groups, grid, learned)
        if not self.weighs:
            able = [other.kind for other in _defaults() if other.weighs]
            raise KronpressError(f"{self.kind} does not weigh errors; take {_either(able)}, or no importance")
        weights = grid.groups(importance.float().expand(tensor.shape))
        require_finite(weights)
        return self.weighted(groups, grid, weights=weights)

    def weighted(self, latent: Groups, grid: Grid, *, weights: Groups) -> Coded:
        """Return the codes with the least squared error that the quantizer finds, weighted; only where it `weighs`."""
        raise NotImplementedError

    def _levels_of(self, bits: float, *, shift: bool) -> Levels:
        levels = _levels(self, bits, shift=shift)
        if levels is None:
            able = [other.kind for other in _defaults() if _levels(other, bits, shift=shift)]
            own = sorted({BITS[name] for name in self.levels(shift=shift)})
            shown_bits = [f"{number:g}" for number in own]
            offer = f"set bits to {_either(shown_bits)}" if own else f"set shift: {str(not shift).lower()}"
            more = f", or take {_either(able)}" if able else ""
            raise KronpressError(f"{self.kind} can not do {shown(bits)} bits {_shift(shift)}; {offer}{more}")
        return levels

    def _require_inputs(self) -> None:
        if self.inputs is None:
            able = [other.kind for other in _defaults() if other.inputs is not None]
            raise KronpressError(f"{self.kind} is for weights, not for inputs of layers; take {_either(able)}")


QUANTIZERS: Shelf[type[Quantizer]] = Shelf("quantizer")


def require_finite(numbers: Tensor) -> None:
    """Check that numbers can be put on a grid.

    Raises:
        KronpressError: NaN or infinity is among them.
    """
    low, high = numbers.detach().aminmax()
    if not (low.isfinite() & high.isfinite()):
        raise KronpressError(
            f"NaN or infinity among the {numbers.numel():,} numbers of a tensor, which no grid has; look at what gave "
            "them: inputs, a loss that diverged (lower the learning rate), or the checkpoint"
        )


def positive(scale: Scales, grid: Grid) -> Scales:
    """Return a learned scale as it is in use: above zero, and as the grid stores it."""
    return grid.rounded(scale.clamp(min=SMALLEST))


def levels_of(coded: Coded, grid: Grid) -> Groups:
    """Return the levels that codes stand for."""
    return (grid.lowest + grid.step * coded.codes).to(coded.scale.dtype)


def mean_size(groups: Groups) -> Scales:
    """Return the mean absolute number of each group."""
    return groups.abs().mean(dim=-1, keepdim=True)


def within(latent: Groups, clip: float | None) -> Tensor:
    """Return the derivative of numbers that pass straight through where they lie inside of ±clip."""
    return torch.ones(1, 1, 1, device=latent.device) if clip is None else latent.abs() < clip


def defined(values: Groups, slopes: Sequence[Slope]) -> Groups:
    """Return values whose derivatives are those given, added up over what broadcasts."""
    with_slopes: Any = _Defined.apply
    result: Groups = with_slopes(values, *(part for slope in slopes for part in slope))
    return result


class _Defined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Groups, *slopes: Tensor) -> Groups:
        ctx.save_for_backward(*slopes[1::2])
        ctx.shapes = [tensor.shape for tensor in slopes[::2]]
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1::2]
        parts: list[Tensor | None] = [None]
        for shape, slope, needed in zip(ctx.shapes, ctx.saved_tensors, wanted, strict=True):
            parts += [(gradients[0] * slope).sum_to_size(shape) if needed else None, None]
        return tuple(parts)


def _levels(quantizer: Quantizer, bits: float, *, shift: bool) -> Levels | None:
    """Return the levels that a number of bits stands for, if the quantizer can do them."""
    able = quantizer.levels(shift=shift)
    exact = [name for name in able if BITS[name] == bits]
    return exact[0] if exact else "ternary" if bits == 2 and "ternary" in able else None


def _defaults() -> Iterator[Quantizer]:
    return (quantizer() for _, quantizer in QUANTIZERS.items())


def _shift(shift: bool) -> str:
    return "with a shift" if shift else "without a shift"


def _either(names: Sequence[str]) -> str:
    return " or ".join(names)
