"""One module in the place of a fused projection, with factors for each of its shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, SerializeAsAny, StrictBool, model_validator
from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.layers import dense
from kronpress.layers.formats import TensorSpec
from kronpress.layers.specs import SPECS, Device, DType, InnerProducts, LayerSpec, Size, require_alike
from kronpress.layers.structured import LinearSpec, StructuredLayer, StructuredSpec, empty, on_grids


@SPECS.enroll
class FusedLinearSpec(StructuredSpec):
    """The form of a `FusedLinear`.

    Attributes:
        parts: the layers whose outputs stand together.
        bias: of the whole layer.
        runs: into how many runs the rows of each part are cut; those of the parts alternate.
    """

    kind: ClassVar[str] = "fused_linear"

    parts: Annotated[tuple[SerializeAsAny[LinearSpec], ...], Field(min_length=1)]
    bias: StrictBool = True
    runs: Size = 1

    @model_validator(mode="after")
    def _has_one_width(self) -> FusedLinearSpec:
        require_alike([part.matrix[1] for part in self.parts], "parts")
        if any(part.matrix[0] % self.runs for part in self.parts):
            raise KronpressError(f"runs is {self.runs}, and the rows of a part cannot be cut into so many; restore it")
        if any(part.bias for part in self.parts):
            raise KronpressError("a part has a bias of its own; the bias is that of the whole layer")
        return self

    @property
    def matrix(self) -> tuple[int, int]:
        """The rows of all parts together, and their common columns."""
        return sum(part.matrix[0] for part in self.parts), self.parts[0].matrix[1]

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """The bias."""
        return {"bias": self.tensor(self.matrix[0])} if self.bias else {}

    @property
    def inside(self) -> dict[str, LayerSpec]:
        """The parts."""
        return {f"parts.{i}": part for i, part in enumerate(self.parts)}

    @property
    def inner_products(self) -> InnerProducts:
        """Those of all parts."""
        return [pair for part in self.parts for pair in part.inner_products]

    def build(self, *, device: Device = None, dtype: DType = None) -> FusedLinear:
        """Return a layer of this form whose numbers are not set."""
        return on_grids(FusedLinear(self, device=device, dtype=dtype), self)


class FusedLinear(StructuredLayer):
    """The outputs of several structured linear layers over the same input, one after the other or in alternating runs.

    GPT-2 computes query, key and value by one matrix; the papers factorize the three apart. GPT-NeoX does so too, but
    query, key and value of each head stand together: there each part is cut into as many runs as there are heads.
    """

    def __init__(self, spec: FusedLinearSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.parts = nn.ModuleList(part.build(device=device, dtype=dtype) for part in spec.parts)
        self.runs = spec.runs
        self.bias = empty(spec.matrix[0], device=device, dtype=dtype) if spec.bias else None

    @classmethod
    def of(
        cls, parts: Sequence[StructuredLayer], *, bias: Float[Tensor, " m"] | None = None, runs: int = 1
    ) -> FusedLinear:
        """Return a layer of the given parts, which have no bias of their own."""
        layer = cls(FusedLinearSpec(parts=_forms(parts), bias=bias is not None, runs=runs), device="meta")
        layer.parts = nn.ModuleList(parts)
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer

    @property
    def spec(self) -> FusedLinearSpec:
        """The form of the layer as it is now."""
        return FusedLinearSpec(parts=_forms(self._parts()), bias=self.bias is not None, runs=self.runs, **self.grids)

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """Apply the parts and add the bias."""
        y = self._alternated([part(x) for part in self.parts], dim=-1)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def to_dense(self) -> nn.Linear:
        """Return one linear layer with the weights of all parts."""
        weights = [dense.weight_of(part.to_dense()) for part in self._parts()]
        return dense.linear(self._alternated(weights, dim=0), bias=self.bias)

    def _alternated(self, parts: list[Tensor], *, dim: int) -> Tensor:
        """Put the rows of the parts together, run by run."""
        if self.runs == 1:
            return torch.cat(parts, dim=dim)
        within = dim + 1 if dim >= 0 else dim
        cut = [part.unflatten(dim, (self.runs, -1)) for part in parts]
        return torch.cat(cut, dim=within).flatten(within - 1, within)

    def _parts(self) -> list[StructuredLayer]:
        return [part for part in self.parts if isinstance(part, StructuredLayer)]


def _forms(parts: Sequence[StructuredLayer]) -> tuple[LinearSpec, ...]:
    forms = tuple(part.spec for part in parts if isinstance(part.spec, LinearSpec))
    assert len(forms) == len(parts), f"a fused layer of {[part.spec.kind for part in parts]}"
    return forms
