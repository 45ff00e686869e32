"""Permutations around a Kronecker sum: folded into the neighbours where the network allows, kept in the layer else."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kronpress.bars import Bar
from kronpress.factorize.target import Target
from kronpress.families import Fold, Site, layout
from kronpress.layers import StructuredLayer, bias_of, weight_of
from kronpress.linalg import KroneckerShape, Member, nearest_permuted_kronecker_sum, search_orders

_NAME = "fold"


@torch.no_grad()
def reorder_folds(
    model: PreTrainedModel, sites: Collection[Site], *, terms: int, shape_of: Callable[[Target], KroneckerShape]
) -> None:
    """Reorder the neurons of each fold so that the matrices to factorize come nearer to their Kronecker sums.

    The function of the model stays what it was. A fold with a side that has been factorized already is left.

    Args:
        model: whose neurons move.
        sites: of the matrices to factorize.
        terms: Kronecker products in their sums.
        shape_of: returns the shapes of the factors of a matrix.
    """
    chosen = {site.path: site for site in sites}
    for fold in Bar(layout(model).folds, desc="order neurons", unit="fold"):
        if any(isinstance(model.get_submodule(side.path), StructuredLayer) for side in fold.sides):
            continue
        members = []
        for side in fold.sides:
            if side.path in chosen:
                weight = side.take(weight_of(model.get_submodule(side.path)))
                shape = shape_of(Target.of_weight(chosen[side.path], weight))
                members.append(Member(weight, shape, terms=terms, **{side.axis: _NAME}))
        if members:
            orders = search_orders(members, segments={_NAME: fold.segment} if fold.segment else None)
            reorder(model, fold, orders[_NAME])


@torch.no_grad()
def reorder(model: nn.Module, fold: Fold, order: Int[Tensor, " size"]) -> None:
    """Put what the sides of a fold hold in another order, in place."""
    for side in fold.sides:
        layer = model.get_submodule(side.path)
        assert isinstance(layer.weight, Tensor)
        weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
        for tensor in (weight, bias_of(layer) if side.axis == "rows" else None):
            if tensor is not None:
                tensor.copy_(side.reorder(tensor, order))


def own_orders(
    weight: Float[Tensor, "out in"], shape: KroneckerShape, *, terms: int, axes: Collection[str]
) -> tuple[Float[Tensor, "out in"], dict[str, Int[Tensor, " size"]]]:
    """Return the weight with the `axes` ("rows", "columns") in a better order, and the orders its layer must apply."""
    permuted = nearest_permuted_kronecker_sum(
        weight, shape=shape, terms=terms, rows="rows" in axes, columns="columns" in axes
    )
    orders = {}
    if permuted.row_order is not None:
        weight = weight[permuted.row_order]
        orders["row_order"] = permuted.row_order.argsort()
    if permuted.column_order is not None:
        weight = weight[:, permuted.column_order]
        orders["column_order"] = permuted.column_order
    return weight, orders
