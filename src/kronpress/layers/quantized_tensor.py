"""Tensors whose numbers lie on a grid: stored as codes, trained through latent numbers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from kronpress.errors import KronpressError
from kronpress.layers.grid import Grid, Groups, Scales
from kronpress.layers.products import Columns, available

Learned = Mapping[str, Tensor]
"""What a rule learns beside the latent numbers, by name."""


class Coded(NamedTuple):
    """Numbers as codes of a grid, in groups, with the scale (rows, groups, 1) and shift of each group."""

    codes: Tensor
    scale: Scales
    shift: Scales | None = None


def spanning(groups: Groups, grid: Grid) -> Coded:
    """Return the nearest codes on the grid that reaches all numbers of each group (`Grid.span`)."""
    scale, shift = grid.span(groups)
    return Coded(grid.codes(groups, scale, shift), scale, shift)


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


_SMALL = 2**18  # numbers, 1 MiB in float32
_FEW = 8  # tokens


class QuantizedTensor(nn.Module):
    """The numbers of one tensor of a layer, which lie on a grid; a call returns them, or what is asked of them.

    It is packed, which is how it is stored; or unpacked, where the numbers are kept beside the codes; or learning, with
    latent numbers of full precision that a rule puts on the grid at every call.

    What a packed tensor keeps in RAM beside its codes, from the first call that asks for it: its numbers, where they
    are at most 2¹⁸; and on a CPU with FBGEMM, once a product is asked for, its codes again in columns (`Columns`, a
    byte, half or a quarter of one for each number). Neither is stored, copied or pickled, and both are dropped when
    the codes change or move.

    Attributes:
        grid: where the numbers lie.
        size: of the tensor.
        packed: (bytes,) the codes.
        scale: (rows, groups) in the number format of the grid.
        shift: likewise, or None.
        latent: the latent numbers; None where it is not learning.
        learned: what the rule learns beside.
        rule: None where it is not learning.
        unpacked: whether the numbers are kept beside the codes.
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
        self.unpacked = False
        self._kept = _Kept()

    @classmethod
    def of(cls, coded: Coded, grid: Grid, size: Sequence[int], *, dtype: torch.dtype) -> QuantizedTensor:
        """Return a packed tensor."""
        tensor = cls(grid, size, device="meta", dtype=dtype)
        tensor.take(coded)
        tensor.like = torch.empty(0, dtype=dtype, device=coded.codes.device)
        return tensor

    def forward(self, *, rows: Tensor | None = None, times: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Return the numbers, or `rows` of them, or the `product` with an input; all by a call, as tools expect it."""
        if rows is not None:
            return self.rows(rows)
        if times is not None:
            return self.product(times, bias=bias)
        if self.latent is not None:
            assert self.rule is not None
            values = self.rule.value(self.grid.groups(self.latent), self.grid, dict(self.learned.items()))
            return values.reshape(self.size).to(self.dtype)
        return self._numbers() if self.unpacked or math.prod(self.size) <= _SMALL else self._read()

    def rows(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """Return some rows of a matrix; one that is packed or learns looks at these rows only, for the same numbers."""
        if self.latent is not None and self.grid.group != "tensor":
            return self._learned_rows(self.latent, ids)
        if self.learning or self.unpacked:
            return F.embedding(ids, self())
        assert self.packed is not None and self.scale is not None
        rows = self.grid.read_rows(self.packed, self.scale, self.shift, ids=ids.flatten(), shape=self.size)
        return rows.to(self.dtype).view(*ids.shape, -1)

    def _learned_rows(self, latent: Tensor, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        assert self.rule is not None
        chosen, places = ids.unique(return_inverse=True)
        learned = {name: part[chosen] if len(part) == len(latent) else part for name, part in self.learned.items()}
        some = latent[chosen]
        values = self.rule.value(self.grid.groups(some), self.grid, learned)
        return values.reshape(some.shape)[places].to(self.dtype)

    def product(self, x: Float[Tensor, "*batch n"], *, bias: Tensor | None = None) -> Float[Tensor, "*batch m"]:
        """Return x · Wᵀ + bias for a matrix W, as `F.linear` with its numbers does.

        On a CPU a packed one computes from its codes. The sums of a few tokens are those of float32 in another order,
        within a millionth of Σ|x| times the largest number of W; in a narrower number format, only they are rounded.
        Where tokens are many, or gradients flow to x, W is read from its codes for the moment.
        """
        columns = self._columns(x)
        if columns is None:
            return F.linear(x, self(), bias)
        if x.numel() > _FEW * self.size[1]:
            return F.linear(x, columns.matrix().to(self.dtype), bias)
        y = columns.times(x.reshape(-1, self.size[1]))
        return (y if bias is None else y + bias).to(_computed_in(x)).view(*x.shape[:-1], -1)

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
        values = (self() if latent is None else latent).detach().float()
        groups = self.grid.groups(values)
        self.go_on(rule, rule.begin(groups, self.grid, start), latent=values)

    def go_on(self, rule: Rule, learned: Learned, *, latent: Float[Tensor, "*size"]) -> None:
        """Let it learn by a rule, which has come so far."""
        self.learned = parameters_of(rule, learned)
        own = latent.detach().clone(memory_format=torch.contiguous_format)  # not a part of what was read, or of another
        self.latent, self.rule = nn.Parameter(own), rule
        self.packed = self.scale = self.shift = None
        self.unpacked, self._kept = False, _Kept()

    def pack(self) -> None:
        """Keep the codes alone."""
        if self.latent is not None:
            coded = self.coded()
            self.latent, self.rule, self.learned = None, None, nn.ParameterDict()
            self.take(coded)
        self.unpacked, self._kept = False, _Kept()

    @contextmanager
    def packed_for_now(self) -> Iterator[None]:
        """Keep the codes alone inside of the context, and what was learned again after it."""
        if not self.learning:
            yield
            return
        kept = self.latent, self.learned, self.rule
        self.pack()
        try:
            yield
        finally:
            self.latent, self.learned, self.rule = kept
            self.packed = self.scale = self.shift = None

    def give(self, dtype: torch.dtype) -> None:
        """Give the numbers in another number format from now on."""
        self.like, self._kept = self.like.to(dtype), _Kept()

    def unpack(self) -> None:
        """Keep the numbers beside the codes, so that a call need not read those."""
        if self.latent is None:
            self.unpacked, self._kept = True, _Kept()
            self._numbers()

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

    def _numbers(self) -> Tensor:
        """Return the numbers, which are kept."""
        if _is_traced():  # a graph cannot ask whether codes have changed
            return self._kept.numbers if self.unpacked and self._kept.numbers is not None else self._read()
        kept = self._kept_now()
        if kept.numbers is None:
            with torch.inference_mode(False), torch.no_grad():  # what is kept may be needed in training, too
                kept.numbers = self._read()
            kept.version = kept.numbers._version
        if kept.numbers._version != kept.version:
            self._kept = _Kept()
            raise KronpressError(
                "the numbers of a packed tensor were written into, which leaves its codes as they are; let it learn "
                "(kronpress.quantizers.let_learn), or put a new layer in its place"
            )
        return kept.numbers

    def _columns(self, x: Tensor) -> Columns | None:
        """Return the columns, which are kept, where a product with `x` can be computed from them."""
        if self.learning or self.unpacked or not self._takes_columns(x):
            return None
        kept = self._kept_now()
        if kept.columns is None:
            with torch.inference_mode(False), torch.no_grad():
                coded = self.coded()
                shift = None if coded.shift is None else coded.shift[..., 0]
                kept.columns = Columns.of(coded.codes.view(self.size), coded.scale[..., 0], shift, grid=self.grid)
        return kept.columns

    def _takes_columns(self, x: Tensor) -> bool:
        if _is_traced():  # a graph must hold for any number of tokens
            return False
        if x.device.type != "cpu" or x.numel() == 0 or (x.requires_grad and torch.is_grad_enabled()):
            return False
        return available() and (x.dtype == self.dtype != torch.float64 or torch.is_autocast_enabled("cpu"))

    def _kept_now(self) -> _Kept:
        """Return what is kept, after dropping it where the codes or scales are others than those it was made from."""
        sources = tuple(
            (tensor, 0 if tensor.is_inference() else tensor._version)
            for tensor in (self.packed, self.scale, self.shift)
            if tensor is not None
        )
        if not self._kept.is_from(sources):
            self._kept = _Kept(sources)
        return self._kept

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._kept = _Kept()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, object]:
        """Return what copies and pickles hold."""
        return {**self.__dict__, "_kept": _Kept()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedTensor:
        """Move as any module does, but keep scales and latent numbers in the number formats that they have."""
        like = self.like
        module: Any = super()
        module._apply(lambda tensor: kept_format(tensor, fn), recurse)
        self.like, self._kept = fn(like), _Kept()
        return self

    def extra_repr(self) -> str:
        """Return the size and the grid as the printed model shows them."""
        return f"{'×'.join(map(str, self.size))}, {self.grid.levels}, group={self.grid.group}"


def parameters_of(rule: Rule, learned: Learned) -> nn.ParameterDict:
    """Return what a rule learns as parameters."""
    return nn.ParameterDict(
        {name: nn.Parameter(number.clone(), requires_grad=name not in rule.fixed) for name, number in learned.items()}
    )


@dataclass
class _Kept:
    """What a packed tensor keeps in RAM, in the version that it was made in, and the tensors that it is made from."""

    sources: tuple[tuple[Tensor, int], ...] = ()
    numbers: Tensor | None = None
    version: int = 0
    columns: Columns | None = None

    def is_from(self, sources: tuple[tuple[Tensor, int], ...]) -> bool:
        return len(sources) == len(self.sources) and all(
            tensor is other and version == then
            for (tensor, version), (other, then) in zip(sources, self.sources, strict=True)
        )


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def _computed_in(x: Tensor) -> torch.dtype:
    """Return the number format in which a product with `x` is given."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def kept_format(tensor: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a tensor where `move` puts it, in the number format that it has."""
    moved = move(tensor)
    return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)
