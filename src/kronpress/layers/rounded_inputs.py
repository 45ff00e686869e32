"""Inputs of a layer that are rounded to a grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import StrictBool, model_validator
from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.layers.grid import Grid, Groups
from kronpress.layers.quantized_tensor import Coded, Learned, Rule, kept_format, parameters_of, spanning


class InputGrid(Grid):
    """Where the inputs of a layer are rounded to: scale · level + shift.

    Attributes:
        group: `row` for a scale of each token, `tensor` for one scale in all.
        dynamic: whether a batch gives its own scale (see `Grid.span`) or the layer has a stored one.
    """

    group: Literal["row", "tensor"] = "tensor"
    scale: Literal["float32"] = "float32"
    dynamic: StrictBool = True

    @model_validator(mode="after")
    def _stored_once(self) -> InputGrid:
        if not self.dynamic and self.group != "tensor":
            raise KronpressError("a stored scale is one for all tokens; set group: tensor, or dynamic: true")
        return self

    @property
    def ranges(self) -> tuple[str, ...]:
        """What is stored: nothing where every batch gives its own."""
        if self.dynamic:
            return ()
        return ("scale", "shift") if self.shift else ("scale",)


class RoundedInputs(nn.Module):
    """Rounds the inputs of a layer to a grid; a call returns them so.

    Attributes:
        grid: where they are rounded to.
        scale: (1, 1) the stored scale in float32; None where every batch gives its own, and while it is learning.
        shift: likewise.
        learned: what a rule learns in their place.
        rule: None where it is not learning.
        idle: whether inputs pass as they are for the moment, see `unrounded`.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, grid: InputGrid, *, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.grid = grid
        for name in ("scale", "shift"):
            unset = torch.full((1, 1), torch.nan, device=device)
            self.register_buffer(name, unset if name in grid.ranges else None)
        self.learned = nn.ParameterDict()
        self.rule: Rule | None = None
        self.idle = False

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """Return the inputs on the grid, in their number format."""
        if self.idle:
            return x
        with torch.autocast(x.device.type, enabled=False):
            groups = self.grid.groups(x.float())
            rounded = (
                self._straight(groups)
                if self.rule is None
                else self.rule.value(groups, self.grid, dict(self.learned.items()))
            )
        return rounded.reshape(x.shape).to(x.dtype)

    @property
    def learning(self) -> bool:
        """Whether a rule learns the scale."""
        return self.rule is not None

    def learn(self, rule: Rule, *, example: Float[Tensor, "*batch n"]) -> None:
        """Let a rule learn the scale, from the one that is stored or else from an example of the inputs."""
        stored = self.scale is not None and not self.scale.is_meta and self.scale.isfinite().all()
        groups = self.grid.groups(example.float())
        start = self._coded(groups) if stored else None
        self.go_on(rule, rule.begin(groups, self.grid, start))

    def go_on(self, rule: Rule, learned: Learned) -> None:
        """Let a rule learn the scale, which has come so far."""
        self.learned = parameters_of(rule, learned)
        self.rule, self.scale, self.shift = rule, None, None

    def pack(self) -> None:
        """Keep the scale as it is, and learn no more."""
        if self.rule is not None and not self.grid.dynamic:
            coded = self.rule.code(torch.zeros(1, 1, 1, device=self._device()), self.grid, dict(self.learned.items()))
            self.scale = coded.scale.detach()[..., 0]
            self.shift = None if coded.shift is None else coded.shift.detach()[..., 0]
        self.rule, self.learned = None, nn.ParameterDict()

    @contextmanager
    def packed_for_now(self) -> Iterator[None]:
        """Keep the scale as it is inside of the context, and what was learned again after it."""
        kept = self.learned, self.rule
        self.pack()
        try:
            yield
        finally:
            self.learned, self.rule = kept
            if self.learning:
                self.scale = self.shift = None

    def _device(self) -> torch.device:
        return next(self.learned.parameters()).device

    def _coded(self, groups: Groups) -> Coded:
        if self.grid.dynamic:
            return spanning(groups, self.grid)
        assert self.scale is not None, "it is learning"
        scale, shift = self.scale[..., None], None if self.shift is None else self.shift[..., None]
        return Coded(self.grid.codes(groups, scale, shift), scale, shift)

    def _straight(self, groups: Groups) -> Groups:
        """Round with gradients straight through where the grid reaches."""
        codes, scale, shift = self._coded(groups.detach())
        values = self.grid.values(codes, scale, shift)
        return self.grid.straight(groups, values, scale, shift=shift) if groups.requires_grad else values

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RoundedInputs:
        """Move as any module does, but keep scales in float32."""
        module: Any = super()
        module._apply(lambda tensor: kept_format(tensor, fn), recurse)
        return self

    def extra_repr(self) -> str:
        """Return the grid as the printed model shows it."""
        return f"{self.grid.levels}, group={self.grid.group}, dynamic={self.grid.dynamic}"
