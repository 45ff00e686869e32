"""Linear layers over a sum of Kronecker products, and what they share with tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import StrictBool
from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.layers import dense
from kronpress.layers.formats import TensorSpec, order_dtype, order_spec
from kronpress.layers.specs import SPECS, Device, DType, InnerProducts, Pair, Size
from kronpress.layers.structured import LinearSpec, StructuredLayer, StructuredSpec, empty, on_grids
from kronpress.linalg import KroneckerShape, KroneckerSum, expand

Orders = Mapping[str, Int[Tensor, " size"]]
_ORDERS: tuple[Literal["row_order"], Literal["column_order"]] = ("row_order", "column_order")


class KroneckerSpec(StructuredSpec):
    """The form of a layer over a sum of Kronecker products.

    Attributes:
        left: (m1, n1) of the left factors.
        right: (m2, n2) of the right factors.
        terms: how many products are summed.
        scales: whether each term has a learnable factor of its own.
        orders: which sides are in another order than that of the products.
    """

    left: Pair
    right: Pair
    terms: Size = 1
    scales: StrictBool = False
    orders: tuple[Literal["row_order", "column_order"], ...] = ()

    @property
    def shape(self) -> KroneckerShape:
        """The shapes of one term."""
        return KroneckerShape(self.left[0], self.left[1], self.right[0], self.right[1])

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the products."""
        return self.shape.matrix

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """Factors, scales and orders."""
        tensors = {"left": self.tensor(self.terms, *self.left), "right": self.tensor(self.terms, *self.right)}
        if self.scales:
            tensors["scales"] = self.tensor(self.terms)
        sizes = zip(_ORDERS, self.matrix, strict=True)
        return tensors | {name: order_spec(size) for name, size in sizes if name in self.orders}

    @property
    def products(self) -> InnerProducts:
        """The inner products with one vector in the cheaper order of contraction, all terms."""
        pairs = self.shape.inner_products(right_first=self.shape.right_first)
        return [(length, self.terms * count) for length, count in pairs]


@SPECS.enroll
class KroneckerLinearSpec(KroneckerSpec, LinearSpec):
    """The form of a `KroneckerLinear`."""

    kind: ClassVar[str] = "kronecker_linear"

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """Factors, scales, orders and bias."""
        return super().own_tensors | ({"bias": self.tensor(self.matrix[0])} if self.bias else {})

    @property
    def inner_products(self) -> InnerProducts:
        """Those of the product."""
        return self.products

    def build(self, *, device: Device = None, dtype: DType = None) -> KroneckerLinear:
        """Return a layer of this form whose numbers are not set."""
        return on_grids(KroneckerLinear(self, device=device, dtype=dtype), self)


class KroneckerFactors(StructuredLayer):
    """The factors of K = Σ scale_k · left_k ⊗ right_k, shared by the linear and the embedding form.

    The weight is K itself, or K with rows and columns in another order (TQCompressor): a product first takes
    the inputs in `column_order`, then multiplies by K, then takes the results in `row_order`.

    Attributes:
        left: (terms, m1, n1).
        right: (terms, m2, n2).
        scales: (terms,) or None; learnable, kept apart from the factors (Krony-PT, section 3.3).
        row_order: (m,) integers or None.
        column_order: (n,) integers or None.
    """

    row_order: Tensor | None
    column_order: Tensor | None

    def __init__(self, spec: KroneckerSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.shape, self.terms = spec.shape, spec.terms
        self.left = empty(spec.terms, *spec.left, device=device, dtype=dtype)
        self.right = empty(spec.terms, *spec.right, device=device, dtype=dtype)
        self.scales = empty(spec.terms, device=device, dtype=dtype) if spec.scales else None
        for name, size in zip(_ORDERS, self.shape.matrix, strict=True):
            order = torch.arange(size, dtype=order_dtype(size), device=device) if name in spec.orders else None
            self.register_buffer(name, order)

    def form(self) -> dict[str, Any]:
        """Return the fields of the spec that are about the factors, as they are now."""
        orders = tuple(name for name in _ORDERS if getattr(self, name) is not None)
        return sizes_of(self.shape, self.terms) | {"scales": self.scales is not None, "orders": orders}

    def factors(self) -> tuple[Float[Tensor, "terms m1 n1"], Float[Tensor, "terms m2 n2"]]:
        """Return (left, right) with the scales multiplied into the smaller of the two."""
        if self.scales is None:
            return self.left, self.right
        scales = self.scales[:, None, None]
        if self.left.numel() < self.right.numel():
            return self.left * scales, self.right
        return self.left, self.right * scales

    @torch.no_grad()
    def fold_scales(self) -> None:
        """Multiply the scales into the factors and drop them: the same function with fewer parameters."""
        left, right = self.factors()
        self.left, self.right, self.scales = nn.Parameter(left.detach()), nn.Parameter(right.detach()), None

    def dense_weight(self) -> Float[Tensor, "m n"]:
        """Return the weight, scales and orders included."""
        weight = expand(*self.factors())
        if self.row_order is not None:
            weight = weight[self.row_order.long()]
        return weight if self.column_order is None else weight[:, inverse_order(self.column_order)]

    def product(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """Return x · Wᵀ; with x folded to X (n1, n2), (left ⊗ right) x = left · X · rightᵀ.

        The cheaper order of the two products is taken (KroneckerBERT, eq. 7).
        """
        if x.shape[-1] != self.shape.matrix[1]:
            raise KronpressError(f"the input has {x.shape[-1]} features; this layer takes {self.shape.matrix[1]}")
        if self.column_order is not None:
            x = x[..., self.column_order.long()]
        contract = _right_first if self.shape.right_first else _left_first
        y = contract(x.reshape(-1, self.shape.n1, self.shape.n2), *self.factors())
        y = y.reshape(*x.shape[:-1], self.shape.matrix[0])
        return y if self.row_order is None else y[..., self.row_order.long()]

    def fill(self, value: KroneckerSum, *, scales: Float[Tensor, " terms"] | None, orders: Orders) -> None:
        """Take over the factors of `value` as own parameters, and what stands around them."""
        self.left = nn.Parameter(value.left.contiguous())
        self.right = nn.Parameter(value.right.contiguous())
        if scales is not None:
            self.scales = nn.Parameter(scales.to(value.left))
        for name, order in orders.items():
            setattr(self, name, order.to(value.left.device, order_dtype(len(order))))

    def factors_repr(self) -> str:
        """Return the factors as the printed model shows them."""
        shape, names = self.shape, ", ".join(self.form()["orders"])
        scaled = ", scales" if self.scales is not None else ""
        return f"left={shape.m1}×{shape.n1}, right={shape.m2}×{shape.n2}, terms={self.terms}{scaled}" + (
            f", {names}" if names else ""
        )


def sizes_of(shape: KroneckerShape, terms: int) -> dict[str, Any]:
    """Return the fields of the spec of a sum of so many products."""
    return {"left": (shape.m1, shape.n1), "right": (shape.m2, shape.n2), "terms": terms}


class KroneckerLinear(KroneckerFactors):
    """y = (Σ scale_k · left_k ⊗ right_k) x + bias, without ever forming the product.

    Input (..., n1·n2), output (..., m1·m2).
    """

    def __init__(self, spec: KroneckerLinearSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__(spec, device=device, dtype=dtype)
        self.out_features, self.in_features = self.shape.matrix
        self.bias = empty(self.out_features, device=device, dtype=dtype) if spec.bias else None

    @classmethod
    def of(
        cls,
        value: KroneckerSum,
        *,
        bias: Float[Tensor, " m"] | None = None,
        scales: Float[Tensor, " terms"] | None = None,
        orders: Orders | None = None,
    ) -> KroneckerLinear:
        """Return a layer that computes with the factors of `value`, scaled and reordered."""
        sizes = sizes_of(value.shape, value.terms)
        layer = cls(KroneckerLinearSpec(**sizes, scales=scales is not None, bias=bias is not None), device="meta")
        layer.fill(value, scales=scales, orders=orders or {})
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer

    @property
    def spec(self) -> KroneckerLinearSpec:
        """The form of the layer as it is now."""
        return KroneckerLinearSpec(**self.form(), **self.grids, bias=self.bias is not None)

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """Apply the layer."""
        y = self.product(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)  # which autocast may have made narrower

    def to_dense(self) -> nn.Linear:
        """Return the linear layer with the factors multiplied out."""
        return dense.linear(self.dense_weight(), bias=self.bias)

    def extra_repr(self) -> str:
        """Return the factors as the printed model shows them."""
        return f"in={self.in_features}, out={self.out_features}, {self.factors_repr()}"


def inverse_order(order: Int[Tensor, " size"]) -> Int[Tensor, " size"]:
    """Return the order that undoes `order`."""
    return order.long().argsort()


def _right_first(
    x: Float[Tensor, "batch n1 n2"], left: Float[Tensor, "terms m1 n1"], right: Float[Tensor, "terms m2 n2"]
) -> Float[Tensor, "batch m1 m2"]:
    (terms, m1, n1), (_, m2, n2) = left.shape, right.shape
    z = x.reshape(-1, n2) @ right.reshape(terms * m2, n2).T  # batch·n1 terms·m2
    z = z.view(-1, n1, terms, m2).permute(0, 3, 2, 1).reshape(-1, terms * n1)  # two axes: batched products are slow
    y = z @ left.transpose(1, 2).reshape(terms * n1, m1)
    return y.view(-1, m2, m1).transpose(1, 2)


def _left_first(
    x: Float[Tensor, "batch n1 n2"], left: Float[Tensor, "terms m1 n1"], right: Float[Tensor, "terms m2 n2"]
) -> Float[Tensor, "batch m1 m2"]:
    (terms, m1, n1), (_, m2, n2) = left.shape, right.shape
    z = x.transpose(1, 2).reshape(-1, n1) @ left.reshape(terms * m1, n1).T  # batch·n2 terms·m1
    z = z.view(-1, n2, terms, m1).permute(0, 3, 2, 1).reshape(-1, terms * n2)
    return (z @ right.transpose(1, 2).reshape(terms * n2, m2)).view(-1, m1, m2)
