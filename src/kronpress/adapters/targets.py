"""The weights and factors of a model that can take an adapter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kronpress.errors import KronpressError
from kronpress.families import select_sites
from kronpress.layers import FactoredEmbedding, FactoredHead, StructuredLayer, is_transposed, matrices_of


@dataclass(frozen=True)
class Target:
    """A weight or a factor, which an adapter sees as a matrix.

    Attributes:
        path: of the layer, and the name of the tensor in it.
        holder: the module that has the tensor.
        name: of the tensor in that module.
        tensor: its numbers.
        layer: the path of the dense layer whose weight it is; None for a factor.
    """

    path: str
    holder: nn.Module
    name: str
    tensor: nn.Parameter
    layer: str | None = None

    @property
    def matrix(self) -> tuple[int, int]:
        """Its rows (outputs) and columns; of a factor with more sides, the first ones are the rows."""
        if is_transposed(self.holder):
            return self.tensor.shape[1], self.tensor.shape[0]
        rows = math.prod(self.tensor.shape[: (self.tensor.dim() + 1) // 2])
        return rows, self.tensor.numel() // rows

    def folded(self, update: Float[Tensor, "rows columns"]) -> Tensor:
        """Return an update of the matrix in the shape of the tensor."""
        return (update.T if is_transposed(self.holder) else update).reshape(self.tensor.shape)


def targets_of(model: PreTrainedModel, sites: str) -> list[Target]:
    """Return the weights of dense layers and the factors of others at the sites that a pattern names.

    Raises:
        KronpressError: the pattern matches nothing, or a layer takes no adapters.
    """
    targets: dict[int, Target] = {}
    for site in select_sites(model, sites):
        layer = model.get_submodule(site.path)
        _require_able(model, layer, path=site.path)
        for target in _inside(layer, path=site.path):
            targets.setdefault(id(target.tensor), target)
    return list(targets.values())


def _inside(layer: nn.Module, *, path: str) -> Iterator[Target]:
    if not isinstance(layer, StructuredLayer):
        yield Target(f"{path}.weight", layer, "weight", layer.get_parameter("weight"), layer=path)
        return
    paths = {id(module): f"{path}.{inside}".rstrip(".") for inside, module in layer.named_modules()}
    for matrix in matrices_of(layer):
        inside, _, name = matrix.name.rpartition(".")
        holder = matrix.layer.get_submodule(inside)
        yield Target(f"{paths[id(matrix.layer)]}.{matrix.name}", holder, name, holder.get_parameter(name))


def _require_able(model: PreTrainedModel, layer: nn.Module, *, path: str) -> None:
    """Refuse token tables, which heads read as well, and numbers that a merged adapter would take off their grid."""
    table = model.get_input_embeddings()
    reads_table = isinstance(layer, nn.Linear | Conv1D) and layer.weight is getattr(table, "weight", None)
    if layer is table or reads_table or isinstance(layer, FactoredEmbedding | FactoredHead):
        raise KronpressError(f"'{path}' is a token table, or reads one, and takes no adapter; leave it out of sites")
    if not isinstance(layer, nn.Linear | Conv1D | StructuredLayer):
        raise KronpressError(f"'{path}' is a {type(layer).__name__}, which takes no adapter; leave it out of sites")
    if isinstance(layer, StructuredLayer) and any(matrix.quantized is not None for matrix in matrices_of(layer)):
        raise KronpressError(
            f"'{path}' holds codes of a few bits, into which no adapter can be merged; quantize after this step, "
            "leave the layer out of sites, or train without adapters"
        )
