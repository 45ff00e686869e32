"""A linear layer over a tensor-train matrix, and a token table with a tensor train for each row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.layers import dense
from kronpress.layers.embedding import FactoredEmbedding
from kronpress.layers.structured import LAYERS, InnerProducts, StructuredLayer, empty, full_precision
from kronpress.linalg import TensorTrainMatrix, TensorTrainTable, expand_rows, expand_train

_CHUNK_ELEMENTS = 2**22


class Cores(nn.ParameterList):
    """Cores that are read by a call, which is where tools bring offloaded parameters in."""

    __call__ = nn.Module.__call__  # a ParameterList has none

    def forward(self) -> tuple[Tensor, ...]:
        """Return the cores."""
        return tuple(self)


@LAYERS.register("tensor_train_linear")
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

    kind = "tensor_train_linear"

    def __init__(
        self,
        *,
        modes: Sequence[Sequence[int]],
        ranks: Sequence[int],
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build an empty layer; `ranks` are those between the cores, one fewer than there are modes."""
        super().__init__()
        self.modes, self.ranks = tuple((m, n) for m, n in modes), _all_ranks(ranks, cores=len(modes))
        self.out_features, self.in_features = math.prod(m for m, _ in modes), math.prod(n for _, n in modes)
        ascending = tuple(range(len(modes)))
        self.order = min(ascending, ascending[::-1], key=lambda order: sum(a * b for a, b in self._products(order)))
        shapes = zip(self.ranks, self.modes, self.ranks[1:], strict=False)
        self.cores = Cores(empty(r, m, n, s, device=device, dtype=dtype) for r, (m, n), s in shapes)
        self.bias = empty(self.out_features, device=device, dtype=dtype) if bias else None

    @classmethod
    def of(cls, value: TensorTrainMatrix, *, bias: Float[Tensor, " m"] | None = None) -> TensorTrainLinear:
        """Return a layer that computes with the cores of `value`."""
        layer = cls(modes=value.modes, ranks=value.ranks, bias=bias is not None, device="meta")
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

    def spec(self) -> dict[str, Any]:
        """Return kind, modes, the ranks between the cores and whether there is a bias."""
        modes, ranks = [list(pair) for pair in self.modes], list(self.ranks[1:-1])
        return {"kind": self.kind, "modes": modes, "ranks": ranks, "bias": self.bias is not None}

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the matrix that the cores stand for."""
        return self.out_features, self.in_features

    @property
    def inner_products(self) -> InnerProducts:
        """Those of one input by itself with each core, in the cheaper order."""
        return self._products(self.order)

    def _products(self, order: Sequence[int]) -> InnerProducts:
        sizes, products = [n for _, n in self.modes], []
        for k in order:
            (m, n), entering, leaving = self.modes[k], self.ranks[k], self.ranks[k + 1]
            if order[0] > 0:
                entering, leaving = leaving, entering
            products.append((n * entering, math.prod(sizes) // n * m * leaving))
            sizes[k] = m
        return products

    def extra_repr(self) -> str:
        """Return the modes and ranks as the printed model shows them."""
        modes = " ".join(f"{m}×{n}" for m, n in self.modes)
        ranks = " ".join(map(str, self.ranks[1:-1]))
        return f"in={self.in_features}, out={self.out_features}, modes={modes}, ranks={ranks}"


@LAYERS.register("tensor_train_embedding")
class TensorTrainEmbedding(FactoredEmbedding):
    """A look-up table whose every row is a tensor train of its own (TensorGPT, arXiv 2307.00526).

    Attributes:
        modes: the mode of each core; they multiply to the dimension.
        ranks: the ranks around the cores, the 1 at both ends included.
        cores: (num_embeddings, r, mode, s) each, with r and s the ranks before and after it.
    """

    kind = "tensor_train_embedding"

    def __init__(
        self,
        *,
        num_embeddings: int,
        modes: Sequence[int],
        ranks: Sequence[int],
        padding_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build an empty table; `ranks` are those between the cores, one fewer than there are modes."""
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, math.prod(modes), padding_idx
        self.modes, self.ranks = tuple(modes), _all_ranks(ranks, cores=len(modes))
        shapes = zip(self.ranks, self.modes, self.ranks[1:], strict=False)
        self.cores = Cores(empty(num_embeddings, *shape, device=device, dtype=dtype) for shape in shapes)

    @classmethod
    def of(cls, value: TensorTrainTable, *, padding_idx: int | None = None) -> TensorTrainEmbedding:
        """Return a table that computes with the cores of `value`."""
        rows = len(value.cores[0])
        layer = cls(num_embeddings=rows, modes=value.modes, ranks=value.ranks, padding_idx=padding_idx, device="meta")
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

    def spec(self) -> dict[str, Any]:
        """Return kind, sizes, the ranks between the cores and the padding index."""
        sizes = {"num_embeddings": self.num_embeddings, "modes": list(self.modes), "ranks": list(self.ranks[1:-1])}
        return {"kind": self.kind, **sizes, "padding_idx": self.padding_idx}

    @property
    def inner_products(self) -> InnerProducts:
        """Those that multiply the cores of one row out."""
        sizes = [math.prod(self.modes[: k + 1]) for k in range(len(self.modes))]
        return [(r, size * s) for r, size, s in zip(self.ranks[1:-1], sizes[1:], self.ranks[2:], strict=True)]

    @property
    def score_products(self) -> InnerProducts:
        """Those that form all rows, which a call does once for however many tokens, and those with the rows."""
        forming = [(length, self.num_embeddings * count) for length, count in self.inner_products]
        return [*forming, (self.embedding_dim, self.num_embeddings)]

    def extra_repr(self) -> str:
        """Return the modes and ranks as the printed model shows them."""
        modes, ranks = " ".join(map(str, self.modes)), " ".join(map(str, self.ranks[1:-1]))
        return f"{self.num_embeddings}, {self.embedding_dim}, modes={modes}, ranks={ranks}"


def _all_ranks(inner: Sequence[int], *, cores: int) -> tuple[int, ...]:
    if len(inner) != cores - 1:
        raise KronpressError(f"{len(inner)} ranks for {cores} modes; give those between the cores, {cores - 1}")
    return 1, *inner, 1


def _contract(x: Float[Tensor, "*axes r"], core: Float[Tensor, "r m n s"], *, axis: int) -> Float[Tensor, "*after s"]:
    """Turn one axis of x from n to m, and its rank from r to s, by a matrix product."""
    r, m, n, s = core.shape
    rows = x.movedim(axis, -2)  # … n r
    y = rows.reshape(-1, n * r) @ core.permute(2, 0, 1, 3).reshape(n * r, m * s)
    return y.view(*rows.shape[:-2], m, s).movedim(-2, axis)


def _rows(cores: Sequence[Tensor]) -> Float[Tensor, "rows dim"]:
    with full_precision(cores[0].device):
        return expand_rows(tuple(cores))
