"""Tensors whose numbers lie on a grid: stored as codes, trained through latent numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kronpress.layers.grid import Grid, Groups, Scales

Learned = Mapping[str, Tensor]
"""What a rule learns beside the latent numbers, by name."""


class Coded(NamedTuple):
    """Numbers as codes of a grid, in groups, with the scale (rows, groups, 1) and shift of each group."""

    codes: Tensor
    scale: Scales
    shift: Scales | None = None


class Rule(ABC):
    """How latent numbers, in groups, are put on a grid while they are trained.

    Attributes:
        fixed: what `begin` returns that gets no gradient.
    """

    fixed: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def begin(self, latent: Groups, grid: Grid, start: Coded | None) -> dict[str, Tensor]:
        """Return what is learned beside them, as it starts; `start` holds codes that were found by other means."""

    @abstractmethod
    def code(self, latent: Groups, grid: Grid, learned: Learned) -> Coded:
        """Return the codes, with scales as the grid stores them."""

    @abstractmethod
    def value(self, latent: Groups, grid: Grid, learned: Learned) -> Groups:
        """Return the numbers that `code` stands for, with the gradients that the rule defines."""


@dataclass(frozen=True)
class Nearest(Rule):
    """Keep the scales that were found, take the nearest level, and let gradients pass where the grid reaches."""

    fixed: ClassVar[frozenset[str]] = frozenset({"scale", "shift"})

    def begin(self, latent: Groups, grid: Grid, start: Coded | None) -> dict[str, Tensor]:
        """Return the scales as they are."""
        assert start is not None, "a tensor keeps the scales that it has"
        return {"scale": start.scale} | ({} if start.shift is None else {"shift": start.shift})

    def code(self, latent: Groups, grid: Grid, learned: Learned) -> Coded:
        """Return the nearest codes."""
        scale, shift = learned["scale"], learned.get("shift")
        return Coded(grid.codes(latent, scale, shift), scale, shift)

    def value(self, latent: Groups, grid: Grid, learned: Learned) -> Groups:
        """Return the nearest numbers of the grid, straight through for the gradient."""
        codes, scale, shift = self.code(latent.detach(), grid, learned)
        return grid.straight(latent, grid.values(codes, scale, shift), scale, shift=shift)


class QuantizedTensor(nn.Module):
    """The numbers of one tensor of a layer, which lie on a grid; a call returns them.

    It is packed, which is how it is stored; or unpacked, where the numbers are kept beside the codes; or learning, with
    latent numbers of full precision that a rule puts on the grid at every call.

    Attributes:
        grid: where the numbers lie.
        size: of the tensor.
        packed: (bytes,) the codes.
        scale: (rows, groups) in the number format of the grid.
        shift: likewise, or None.
        latent: the latent numbers; None where it is not learning.
        learned: what the rule learns beside.
        rule: None where it is not learning.
    """

    packed: Tensor | None
    scale: Tensor | None
    shift: Tensor | None
    latent: nn.Parameter | None
    like: Tensor

    def __init__(
        self,
        grid: Grid,
        size: Sequence[int],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.size = grid, tuple(size)
        scales = grid.scales(size)
        self.register_buffer("packed", torch.empty(grid.packed_size(size), dtype=torch.uint8, device=device))
        self.register_buffer("scale", torch.empty(scales, dtype=grid.scale_dtype, device=device))
        shift = torch.empty(scales, dtype=grid.scale_dtype, device=device) if grid.shift else None
        self.register_buffer("shift", shift)
        self.register_buffer("like", torch.empty(0, device=device, dtype=dtype), persistent=False)
        self.register_parameter("latent", None)
        self.learned = nn.ParameterDict()
        self.rule: Rule | None = None
        self._values: Tensor | None = None

    @classmethod
    def of(cls, coded: Coded, grid: Grid, size: Sequence[int], *, dtype: torch.dtype) -> QuantizedTensor:
        """Return a packed tensor."""
        tensor = cls(grid, size, device="meta", dtype=dtype)
        tensor.take(coded)
        tensor.like = torch.empty(0, dtype=dtype, device=coded.codes.device)
        return tensor

    def forward(self) -> Float[Tensor, "*size"]:
        """Return the numbers."""
        if self.latent is not None:
            assert self.rule is not None
            values = self.rule.value(self.grid.groups(self.latent), self.grid, dict(self.learned.items()))
            return values.reshape(self.size)
        return self._read() if self._values is None else self._values

    @property
    def dtype(self) -> torch.dtype:
        """The number format that the numbers are given in."""
        return self.like.dtype

    @property
    def learning(self) -> bool:
        """Whether it has latent numbers."""
        return self.latent is not None

    def coded(self) -> Coded:
        """Return the codes in groups, and the scales."""
        if self.latent is not None:
            assert self.rule is not None
            with torch.no_grad():
                return self.rule.code(self.grid.groups(self.latent.detach()), self.grid, dict(self.learned.items()))
        assert self.packed is not None and self.scale is not None
        codes = self.grid.unpack(self.packed, shape=self.size).view(*self.scale.shape, -1)
        shift = None if self.shift is None else self.shift.float()[..., None]
        return Coded(codes, self.scale.float()[..., None], shift)

    def learn(self, rule: Rule, *, latent: Float[Tensor, "*size"] | None = None) -> None:
        """Let it learn by a rule, from the given latent numbers or from the numbers as they are."""
        start = None if latent is not None and not self._is_set() else self.coded()
        values = self().detach().float() if latent is None else latent.detach().float().clone()
        groups = self.grid.groups(values)
        self.go_on(rule, rule.begin(groups, self.grid, start), latent=values)

    def go_on(self, rule: Rule, learned: Learned, *, latent: Float[Tensor, "*size"]) -> None:
        """Let it learn by a rule, which has come so far."""
        self.learned = parameters_of(rule, learned)
        self.latent, self.rule = nn.Parameter(latent.contiguous()), rule
        self.packed = self.scale = self.shift = self._values = None

    def pack(self) -> None:
        """Keep the codes alone."""
        if self.latent is not None:
            coded = self.coded()
            self.latent, self.rule, self.learned = None, None, nn.ParameterDict()
            self.take(coded)
        self._values = None

    @contextmanager
    def packed_for_now(self) -> Iterator[None]:
        """Keep the codes alone inside of the context, and what was learned again after it."""
        kept = self.latent, self.learned, self.rule
        self.pack()
        try:
            yield
        finally:
            self.latent, self.learned, self.rule = kept
            if self.learning:
                self.packed = self.scale = self.shift = None

    def give(self, dtype: torch.dtype) -> None:
        """Give the numbers in another number format from now on."""
        self.like = self.like.to(dtype)
        if self._values is not None:
            self.unpack()

    def unpack(self) -> None:
        """Keep the numbers beside the codes, so that a call need not read those."""
        if self.latent is None:
            self._values = self._read()

    def _is_set(self) -> bool:
        return self.learning or (self.packed is not None and not self.packed.is_meta)

    def take(self, coded: Coded) -> None:
        """Take codes over in the place of those that it has."""
        self.packed = self.grid.pack(coded.codes)
        self.scale = coded.scale.detach()[..., 0].to(self.grid.scale_dtype)
        self.shift = None if coded.shift is None else coded.shift.detach()[..., 0].to(self.grid.scale_dtype)

    def _read(self) -> Tensor:
        assert self.packed is not None and self.scale is not None
        return self.grid.read(self.packed, self.scale, self.shift, shape=self.size).to(self.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedTensor:
        """Move as any module does, but keep scales and latent numbers in the number formats that they have."""
        like = self.like
        module: Any = super()
        module._apply(lambda tensor: kept_format(tensor, fn), recurse)
        self.like = fn(like)
        if self._values is not None:
            self.unpack()
        return self

    def extra_repr(self) -> str:
        """Return the size and the grid as the printed model shows them."""
        return f"{'×'.join(map(str, self.size))}, {self.grid.levels}, group={self.grid.group}"


def parameters_of(rule: Rule, learned: Learned) -> nn.ParameterDict:
    """Return what a rule learns as parameters."""
    return nn.ParameterDict(
        {name: nn.Parameter(number.clone(), requires_grad=name not in rule.fixed) for name, number in learned.items()}
    )


def kept_format(tensor: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a tensor where `move` puts it, in the number format that it has."""
    moved = move(tensor)
    return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)
