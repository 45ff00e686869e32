"""One module in the place of a fused projection, with factors for each of its shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kronpress.layers import dense
from kronpress.layers.structured import LAYERS, InnerProducts, StructuredLayer, built, empty


@LAYERS.register("fused_linear")
class FusedLinear(StructuredLayer):
    """The outputs of several structured linear layers over the same input, one after the other.

    GPT-2 computes query, key and value by one matrix; the papers factorize the three apart.
    """

    kind = "fused_linear"

    def __init__(
        self,
        *,
        parts: Sequence[dict[str, Any] | StructuredLayer],
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(built(part, device=device, dtype=dtype) for part in parts)
        self.bias = empty(self.matrix[0], device=device, dtype=dtype) if bias else None

    @classmethod
    def of(cls, parts: Sequence[StructuredLayer], *, bias: Float[Tensor, " m"] | None = None) -> FusedLinear:
        """Return a layer of the given parts, which have no bias of their own."""
        layer = cls(parts=parts, bias=bias is not None, device="meta")
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """Apply the parts and add the bias."""
        y = torch.cat([part(x) for part in self.parts], dim=-1)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def to_dense(self) -> nn.Linear:
        """Return one linear layer with the weights of all parts."""
        weights = [dense.weight_of(part.to_dense()) for part in self._parts()]
        return dense.linear(torch.cat(weights), bias=self.bias)

    def spec(self) -> dict[str, Any]:
        """Return kind, the specs of the parts and whether there is a bias."""
        return {"kind": self.kind, "parts": [part.spec() for part in self._parts()], "bias": self.bias is not None}

    @property
    def matrix(self) -> tuple[int, int]:
        """The rows of all parts together, and their common columns."""
        matrices = [part.matrix for part in self._parts()]
        return sum(rows for rows, _ in matrices), matrices[0][1]

    @property
    def inner_products(self) -> InnerProducts:
        """Those of all parts."""
        return [pair for part in self._parts() for pair in part.inner_products]

    def _parts(self) -> list[StructuredLayer]:
        return [part for part in self.parts if isinstance(part, StructuredLayer)]
