"""Dense layers: their form, their weight whatever their orientation, and how to build them."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import StrictBool
from torch import Tensor, nn

from kronpress.layers.formats import TensorSpec
from kronpress.layers.specs import SPECS, Device, DType, InnerProducts, LayerSpec, Size, TableSpec


@SPECS.enroll
class DenseLinearSpec(LayerSpec):
    """The form of a dense linear layer, out × in whatever way its class stores it."""

    kind: ClassVar[str] = "dense_linear"

    in_features: Size
    out_features: Size
    bias: StrictBool = True

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the weight."""
        return self.out_features, self.in_features

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """Weight and bias."""
        weight = {"weight": self.tensor(*self.matrix)}
        return weight | ({"bias": self.tensor(self.out_features)} if self.bias else {})

    @property
    def inner_products(self) -> InnerProducts:
        """One with each row."""
        return [(self.in_features, self.out_features)]

    def build(self, *, device: Device = None, dtype: DType = None) -> nn.Linear:
        """Return a layer of this form."""
        return nn.Linear(self.in_features, self.out_features, bias=self.bias, device=device, dtype=dtype)


@SPECS.enroll
class DenseEmbeddingSpec(TableSpec):
    """The form of a dense token table."""

    kind: ClassVar[str] = "dense_embedding"

    num_embeddings: Size
    embedding_dim: Size

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the table."""
        return self.num_embeddings, self.embedding_dim

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """The table."""
        return {"weight": self.tensor(*self.matrix)}

    @property
    def inner_products(self) -> InnerProducts:
        """None: a row is read as it is."""
        return []

    def build(self, *, device: Device = None, dtype: DType = None) -> nn.Embedding:
        """Return a table of this form."""
        rows, columns = self.matrix
        kind = nn.Embedding if self.scale == 1.0 else ScaledEmbedding
        table: nn.Embedding = kind(rows, columns, padding_idx=self.padding_idx, device=device, dtype=dtype)
        if isinstance(table, ScaledEmbedding):
            table.scale = self.scale
        return table


class ScaledEmbedding(nn.Embedding):
    """A dense table whose rows are multiplied by a constant as they are looked up, as Gemma's are.

    Attributes:
        scale: that constant; a head tied to the table does without it.
    """

    scale: float = 1.0

    def forward(self, input: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        """Look the rows up and multiply them."""
        return scaled(super().forward(input), self.scale)


def scaled(rows: Float[Tensor, "*batch dim"], scale: float) -> Float[Tensor, "*batch dim"]:
    """Return rows times a constant that is rounded to their number format first, as transformers does it."""
    return rows if scale == 1.0 else rows * torch.tensor(scale, dtype=rows.dtype, device=rows.device)


def scale_of(table: nn.Module) -> float:
    """Return what a token table, of ours or of transformers, multiplies its rows by."""
    return float(getattr(table, "scale", getattr(table, "scalar_embed_scale", 1.0)))


def weight_of(layer: nn.Module) -> Float[Tensor, "out in"]:
    """Return the weight as out × in; GPT-2's `Conv1D` stores in × out and is transposed here, once."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach().T if is_transposed(layer) else weight.detach()


def linear(weight: Float[Tensor, "out in"], *, bias: Float[Tensor, " out"] | None = None) -> nn.Linear:
    """Return a linear layer that holds copies of the given tensors."""
    out_features, in_features = weight.shape
    layer = nn.Linear(in_features, out_features, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone().contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def narrowed(layer: nn.Module, weight: Float[Tensor, "out in"], *, bias: Tensor | None) -> nn.Module:
    """Return a dense layer of the class of `layer` (so that its checkpoint stays plain) with this weight."""
    if not is_transposed(layer):
        return linear(weight, bias=bias)
    narrow = type(layer)(weight.shape[0], weight.shape[1])
    narrow.weight = nn.Parameter(weight.detach().T.clone().contiguous())
    narrow.bias = nn.Parameter(torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias.detach().clone())
    return narrow


def is_transposed(layer: nn.Module) -> bool:
    """Say whether the layer is GPT-2's `Conv1D`."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(layer, Conv1D)
