"""Permutations around a Kronecker sum: folded into the neighbours where the network allows, kept in the layer else."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kronpress.factorize.request import Request
from kronpress.families import FeedForward, Site, layout
from kronpress.layers import bias_of, weight_of
from kronpress.linalg import KroneckerShape, Member, nearest_permuted_kronecker_sum, search_orders

_HIDDEN = "hidden"


@torch.no_grad()
def fold_hidden_orders(model: PreTrainedModel, sites: Iterable[Site], request: Request) -> None:
    """Reorder the hidden neurons of each feed-forward block so that its factorized matrices come nearer to their sums.

    The rows of gate and up and the columns of down move alike, so the function of the model stays what it was.
    """
    chosen = {site.path: site for site in sites}
    for block in tqdm(layout(model).feed_forwards, desc="order hidden neurons", unit="block", disable=None):
        paths = [path for path in (*block.expanding, block.down) if path in chosen]
        members = [_member(weight_of(model.get_submodule(path)), chosen[path], block, request) for path in paths]
        if members:
            reorder_hidden(model, block, search_orders(members)[_HIDDEN])


def _member(weight: Float[Tensor, "out in"], site: Site, block: FeedForward, request: Request) -> Member:
    shape = request.shape((weight.shape[0], weight.shape[1]), site=site)
    axis = "columns" if site.path == block.down else "rows"
    return Member(weight, shape, terms=request.terms, **{axis: _HIDDEN})


def reorder_hidden(model: nn.Module, block: FeedForward, order: Int[Tensor, " hidden"]) -> None:
    """Put the hidden neurons of a dense feed-forward block in another order, in place."""
    for path in block.expanding:
        layer = model.get_submodule(path)
        _reorder(layer, order, axis=0)
        bias = bias_of(layer)
        if bias is not None:
            bias.copy_(bias[order])
    _reorder(model.get_submodule(block.down), order, axis=1)


def _reorder(layer: nn.Module, order: Int[Tensor, " size"], *, axis: int) -> None:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    weight.copy_(weight.index_select(1 - axis if isinstance(layer, Conv1D) else axis, order.to(weight.device)))


def own_orders(
    weight: Float[Tensor, "out in"], shape: KroneckerShape, site: Site, *, terms: int
) -> tuple[Float[Tensor, "out in"], dict[str, Int[Tensor, " size"]]]:
    """Return the weight with rows and columns in a better order, and the orders that its layer must then apply.

    Hidden neurons are left to `fold_hidden_orders`, the rows of a table to itself.
    """
    found = nearest_permuted_kronecker_sum(
        weight,
        shape=shape,
        terms=terms,
        rows=site.role not in ("gate", "up", "embedding"),
        columns=site.role != "down",
    )
    orders = {}
    if found.row_order is not None:
        weight = weight[found.row_order]
        orders["row_order"] = found.row_order.argsort()
    if found.column_order is not None:
        weight = weight[:, found.column_order]
        orders["column_order"] = found.column_order
    return weight, orders
