"""Permutations around a Kronecker sum: folded into the neighbours where the network allows, kept in the layer else."""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kronpress.bars import Bar
from kronpress.factorize.request import Request
from kronpress.families import Fold, Side, Site, layout
from kronpress.layers import StructuredLayer, bias_of, weight_of
from kronpress.linalg import KroneckerShape, Member, nearest_permuted_kronecker_sum, search_orders

_NAME = "fold"


@torch.no_grad()
def reorder_folds(model: PreTrainedModel, sites: Collection[Site], request: Request) -> None:
    """Reorder the neurons of each fold so that the matrices to factorize come nearer to their Kronecker sums.

    The function of the model stays what it was. A fold with a side that has been factorized already is left.
    """
    chosen = {site.path: site for site in sites}
    for fold in Bar(layout(model).folds, desc="order neurons", unit="fold"):
        if any(isinstance(model.get_submodule(side.path), StructuredLayer) for side in fold.sides):
            continue
        members = [_member(model, side, chosen[side.path], request) for side in fold.sides if side.path in chosen]
        if members:
            found = search_orders(members, segments={_NAME: fold.segment} if fold.segment else None)
            reorder(model, fold, found[_NAME])


def _member(model: PreTrainedModel, side: Side, site: Site, request: Request) -> Member:
    weight = weight_of(model.get_submodule(side.path)).chunk(side.shares)[side.share]
    shape = request.shape((weight.shape[0], weight.shape[1]), site=site)
    return Member(weight, shape, terms=request.terms, **{side.axis: _NAME})


@torch.no_grad()
def reorder(model: nn.Module, fold: Fold, order: Int[Tensor, " size"]) -> None:
    """Put what the sides of a fold hold in another order, in place."""
    for side in fold.sides:
        layer = model.get_submodule(side.path)
        assert isinstance(layer.weight, Tensor)
        weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
        if side.axis == "columns":
            weight.copy_(weight[:, order])
            continue
        for tensor in (weight, bias_of(layer)):
            if tensor is not None:
                part = tensor.chunk(side.shares)[side.share]
                part.copy_(part[order])


def own_orders(
    weight: Float[Tensor, "out in"], shape: KroneckerShape, *, terms: int, axes: Collection[str]
) -> tuple[Float[Tensor, "out in"], dict[str, Int[Tensor, " size"]]]:
    """Return the weight with the `axes` ("rows", "columns") in a better order, and the orders its layer must apply."""
    found = nearest_permuted_kronecker_sum(
        weight, shape=shape, terms=terms, rows="rows" in axes, columns="columns" in axes
    )
    orders = {}
    if found.row_order is not None:
        weight = weight[found.row_order]
        orders["row_order"] = found.row_order.argsort()
    if found.column_order is not None:
        weight = weight[:, found.column_order]
        orders["column_order"] = found.column_order
    return weight, orders
