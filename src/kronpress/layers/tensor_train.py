"""A linear layer over a tensor-train matrix, and a token table with a tensor train for each row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.layers import dense
from kronpress.layers.embedding import FactoredEmbedding, FactoredTableSpec
from kronpress.layers.formats import TensorSpec
from kronpress.layers.specs import SPECS, Device, DType, InnerProducts, Pair, Size
from kronpress.layers.structured import LinearSpec, Storing, StructuredLayer, empty, full_precision, on_grids
from kronpress.linalg import TensorTrainMatrix, TensorTrainTable, expand_rows, expand_train

_CHUNK_ELEMENTS = 2**22

Modes = Annotated[tuple[Size, ...], Field(min_length=1, max_length=64)]
Pairs = Annotated[tuple[Pair, ...], Field(min_length=1, max_length=64)]


@SPECS.enroll
class TensorTrainLinearSpec(LinearSpec):
    """The form of a `TensorTrainLinear`.

    Attributes:
        modes: the (m, n) of each core.
        ranks: those between the cores, one fewer than there are modes.
    """

    kind: ClassVar[str] = "tensor_train_linear"

    modes: Pairs
    ranks: tuple[Size, ...]

    @model_validator(mode="after")
    def _has_ranks(self) -> TensorTrainLinearSpec:
        _require_ranks(self.ranks, len(self.modes))
        return self

    @property
    def all_ranks(self) -> tuple[int, ...]:
        """The ranks around the cores, the 1 at both ends included."""
        return 1, *self.ranks, 1

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the matrix that the cores stand for."""
        return math.prod(m for m, _ in self.modes), math.prod(n for _, n in self.modes)

    @property
    def cores(self) -> list[tuple[int, ...]]:
        """The shape (r, m, n, s) of each core."""
        cores = zip(self.all_ranks, self.modes, self.all_ranks[1:], strict=False)
        return [(r, m, n, s) for r, (m, n), s in cores]

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """The cores and the bias."""
        tensors = {f"cores.{k}": self.tensor(*shape) for k, shape in enumerate(self.cores)}
        return tensors | ({"bias": self.tensor(self.matrix[0])} if self.bias else {})

    @property
    def order(self) -> tuple[int, ...]:
        """The numbers of the cores in the order in which they meet the input: the first or the last first."""
        ascending = tuple(range(len(self.modes)))
        return min(ascending, ascending[::-1], key=lambda order: sum(a * b for a, b in self.products(order)))

    @property
    def inner_products(self) -> InnerProducts:
        """Those of one input by itself with each core, in the cheaper order."""
        return self.products(self.order)

    def products(self, order: Sequence[int]) -> InnerProducts:
        """Return those of one input with each core, in this order."""
        sizes, products = [n for _, n in self.modes], []
        for k in order:
            (m, n), entering, leaving = self.modes[k], self.all_ranks[k], self.all_ranks[k + 1]
            if order[0] > 0:
                entering, leaving = leaving, entering
            products.append((n * entering, math.prod(sizes) // n * m * leaving))
            sizes[k] = m
        return products

    def build(self, *, device: Device = None, dtype: DType = None) -> TensorTrainLinear:
        """Return a layer of this form whose numbers are not set."""
        return on_grids(TensorTrainLinear(self, device=device, dtype=dtype), self)


@SPECS.enroll
class TensorTrainEmbeddingSpec(FactoredTableSpec):
    """The form of a `TensorTrainEmbedding`.

    Attributes:
        num_embeddings: how many rows there are.
        modes: the mode of each core; they multiply to the dimension.
        ranks: those between the cores, one fewer than there are modes.
    """

    kind: ClassVar[str] = "tensor_train_embedding"

    num_embeddings: Size
    modes: Modes
    ranks: tuple[Size, ...]

    @model_validator(mode="after")
    def _has_ranks(self) -> TensorTrainEmbeddingSpec:
        _require_ranks(self.ranks, len(self.modes))
        return self

    @property
    def all_ranks(self) -> tuple[int, ...]:
        """The ranks around the cores, the 1 at both ends included."""
        return 1, *self.ranks, 1

    @property
    def matrix(self) -> tuple[int, int]:
        """The rows, and their length."""
        return self.num_embeddings, math.prod(self.modes)

    @property
    def cores(self) -> list[tuple[int, ...]]:
        """The shape (num_embeddings, r, mode, s) of each core."""
        cores = zip(self.all_ranks, self.modes, self.all_ranks[1:], strict=False)
        return [(self.num_embeddings, *core) for core in cores]

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """The cores."""
        return {f"cores.{k}": self.tensor(*shape) for k, shape in enumerate(self.cores)}

    @property
    def inner_products(self) -> InnerProducts:
        """Those that multiply the cores of one row out."""
        sizes = [math.prod(self.modes[: k + 1]) for k in range(len(self.modes))]
        return [(r, size * s) for r, size, s in zip(self.ranks, sizes[1:], self.all_ranks[2:], strict=True)]

    @property
    def score_products(self) -> InnerProducts:
        """Those that form all rows, which a call does once for however many tokens, and those with the rows."""
        forming = [(length, self.num_embeddings * count) for length, count in self.inner_products]
        return [*forming, (self.matrix[1], self.num_embeddings)]

    def build(self, *, device: Device = None, dtype: DType = None) -> TensorTrainEmbedding:
        """Return a table of this form whose numbers are not set."""
        return on_grids(TensorTrainEmbedding(self, device=device, dtype=dtype), self)


class Cores(Storing, nn.ParameterList):
    """Cores that are read by a call, which is where tools bring offloaded parameters in."""

    __call__ = nn.Module.__call__  # a ParameterList has none

    def forward(self) -> tuple[Tensor, ...]:
        """Return the cores."""
        return tuple(self)


class TensorTrainLinear(StructuredLayer):
    """y = W x + bias with W a chain of cores, which meet the input one after the other.

    With x folded to a tensor (n1, n2, …), each core turns its own axis from n to m. From the first core or from the
    last: the cheaper order is taken. At high ranks that costs a multiple of the dense product, so for as many inputs
    at once as make it cheaper, W is multiplied out. Input (..., n1·n2·…), output (..., m1·m2·…).

    Attributes:
        modes: the (m, n) of each core.
        ranks: the ranks around the cores, the 1 at both ends included.
        order: the numbers of the cores in the order in which they meet the input.
        cores: (r, m, n, s) each, with r and s the ranks before and after it.
    """

    def __init__(self, spec: TensorTrainLinearSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.modes = tuple((m, n) for m, n in spec.modes)
        self.ranks, self.order = spec.all_ranks, spec.order
        self.out_features, self.in_features = spec.matrix
        self.cores = Cores(empty(*shape, device=device, dtype=dtype) for shape in spec.cores)
        self.bias = empty(self.out_features, device=device, dtype=dtype) if spec.bias else None

    @classmethod
    def of(cls, value: TensorTrainMatrix, *, bias: Float[Tensor, " m"] | None = None) -> TensorTrainLinear:
        """Return a layer that computes with the cores of `value`."""
        spec = TensorTrainLinearSpec(modes=tuple(value.modes), ranks=tuple(value.ranks), bias=bias is not None)
        layer = cls(spec, device="meta")
        layer.cores = Cores(core.contiguous() for core in value.cores)
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """Apply the layer."""
        if x.shape[-1] != self.in_features:
            raise KronpressError(f"the input has {x.shape[-1]} features; this layer takes {self.in_features}")
        y = x @ self.dense_weight().T if self._pays_to_form(x.numel() // self.in_features) else self._chain(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)  # which autocast may have made narrower

    def _chain(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        y = x.reshape(-1, *(n for _, n in self.modes), 1)  # batch n1 n2 … rank
        cores = self.cores()
        for k in self.order:
            y = _contract(y, cores[k] if self.order[0] == 0 else cores[k].transpose(0, 3), axis=k + 1)
        return y.reshape(*x.shape[:-1], self.out_features)

    def _pays_to_form(self, inputs: int) -> bool:
        sizes = [math.prod([m * n for m, n in self.modes[: k + 1]]) for k in range(len(self.modes))]
        forming = sum(size * r * s for size, r, s in zip(sizes[1:], self.ranks[1:], self.ranks[2:], strict=False))
        chain = sum(length * count for length, count in self.inner_products)
        return inputs * chain > forming + inputs * self.in_features * self.out_features

    def dense_weight(self) -> Float[Tensor, "m n"]:
        """Return the cores multiplied out."""
        return expand_train(self.cores())

    def to_dense(self) -> nn.Linear:
        """Return the linear layer with the cores multiplied out."""
        return dense.linear(self.dense_weight(), bias=self.bias)

    @property
    def spec(self) -> TensorTrainLinearSpec:
        """The form of the layer as it is now."""
        return TensorTrainLinearSpec(modes=self.modes, ranks=self.ranks[1:-1], bias=self.bias is not None, **self.grids)

    def extra_repr(self) -> str:
        """Return the modes and ranks as the printed model shows them."""
        modes = " ".join(f"{m}×{n}" for m, n in self.modes)
        ranks = " ".join(map(str, self.ranks[1:-1]))
        return f"in={self.in_features}, out={self.out_features}, modes={modes}, ranks={ranks}"


class TensorTrainEmbedding(FactoredEmbedding):
    """A look-up table whose every row is a tensor train of its own (TensorGPT, arXiv 2307.00526).

    Attributes:
        modes: the mode of each core; they multiply to the dimension.
        ranks: the ranks around the cores, the 1 at both ends included.
        cores: (num_embeddings, r, mode, s) each, with r and s the ranks before and after it.
    """

    def __init__(self, spec: TensorTrainEmbeddingSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = spec.matrix
        self.padding_idx, self.scale = spec.padding_idx, spec.scale
        self.modes, self.ranks = spec.modes, spec.all_ranks
        self.cores = Cores(empty(*shape, device=device, dtype=dtype) for shape in spec.cores)

    @classmethod
    def of(cls, value: TensorTrainTable, *, padding_idx: int | None = None) -> TensorTrainEmbedding:
        """Return a table that computes with the cores of `value`."""
        rows, modes, ranks = len(value.cores[0]), tuple(value.modes), tuple(value.ranks)
        spec = TensorTrainEmbeddingSpec(num_embeddings=rows, modes=modes, ranks=ranks, padding_idx=padding_idx)
        layer = cls(spec, device="meta")
        layer.cores = Cores(core.contiguous() for core in value.cores)
        return layer

    def rows(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        """Look the rows up."""
        chosen = ids.flatten()
        return _rows([core[chosen] for core in self.cores()]).view(*ids.shape, self.embedding_dim)

    def scores(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocabulary"]:
        """Return x · Wᵀ, forming some rows at a time, once for all of x."""
        size = max(1, _CHUNK_ELEMENTS // self.embedding_dim)
        chunks = zip(*(core.split(size) for core in self.cores()), strict=True)
        return torch.cat([x @ _rows(chunk).T for chunk in chunks], dim=-1)

    def dense_weight(self) -> Float[Tensor, "vocabulary dim"]:
        """Return the table."""
        return expand_rows(self.cores())

    @property
    def spec(self) -> TensorTrainEmbeddingSpec:
        """The form of the table as it is now."""
        return TensorTrainEmbeddingSpec(
            num_embeddings=self.num_embeddings,
            modes=self.modes,
            ranks=self.ranks[1:-1],
            padding_idx=self.padding_idx,
            scale=self.scale,
            **self.grids,
        )

    def extra_repr(self) -> str:
        """Return the modes and ranks as the printed model shows them."""
        modes, ranks = " ".join(map(str, self.modes)), " ".join(map(str, self.ranks[1:-1]))
        return f"{self.num_embeddings}, {self.embedding_dim}, modes={modes}, ranks={ranks}"


def _require_ranks(ranks: Sequence[int], cores: int) -> None:
    if len(ranks) != cores - 1:
        raise KronpressError(f"{len(ranks)} ranks for {cores} modes; give those between the cores, {cores - 1}")


def _contract(x: Float[Tensor, "*axes r"], core: Float[Tensor, "r m n s"], *, axis: int) -> Float[Tensor, "*after s"]:
    """Turn one axis of x from n to m, and its rank from r to s, by a matrix product."""
    r, m, n, s = core.shape
    rows = x.movedim(axis, -2)  # … n r
    y = rows.reshape(-1, n * r) @ core.permute(2, 0, 1, 3).reshape(n * r, m * s)
    return y.view(*rows.shape[:-2], m, s).movedim(-2, axis)


def _rows(cores: Sequence[Tensor]) -> Float[Tensor, "rows dim"]:
    with full_precision(cores[0].device):
        return expand_rows(tuple(cores))
