"""The matrices that make queries, keys and values, with some rows of each head left out."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.families import Attention, replace_module
from kronpress.layers import FusedLinear, StructuredLayer, SubmatrixLinear, bias_of, stored_numbers, weight_of


def keep_rows(
    model: PreTrainedModel,
    attention: Attention,
    *,
    role: str,
    chosen: Bool[Tensor, "groups size"],
    turn: Float[Tensor, "groups size size"],
) -> None:
    """Put a matrix in other coordinates, head by head, and keep the chosen ones; the heads of a group alike."""
    weight, bias = _matrix(model, attention, role=role)
    per_group = len(weight) // chosen.numel()
    turns, rows = turn.repeat_interleave(per_group, dim=0), chosen.repeat_interleave(per_group, dim=0).flatten()
    turned = _turned(weight, turns)
    if bias is not None:
        bias = torch.where(rows, _turned(bias[:, None], turns)[:, 0], 0.0)
    index = rows.nonzero()[:, 0]
    if attention.fusion is None:
        replace_module(model, attention.paths[role], module=SubmatrixLinear.of(turned, rows=index, bias=bias))
        return
    fused, place = _taken_apart(model, attention), attention.fusion.roles.index(role)
    fused.parts[place] = SubmatrixLinear.of(turned, rows=index)
    if bias is not None and fused.bias is not None:
        parts = attention.fusion.split(fused.bias.detach())
        parts[place] = bias
        fused.bias = nn.Parameter(attention.fusion.join(parts))


def require_dense(model: PreTrainedModel, paths: Iterable[str]) -> None:
    """Check that no matrix has factors or codes.

    Raises:
        KronpressError: one has.
    """
    for path in paths:
        if isinstance(model.get_submodule(path), StructuredLayer):
            raise KronpressError(f"{path} has factors or codes already; prune first")


def count(model: PreTrainedModel, paths: Iterable[str]) -> int:
    """Return how many numbers the modules at some paths store."""
    return sum(stored_numbers(model.get_submodule(path)) for path in paths)


def _turned(rows: Float[Tensor, "rows n"], turns: Float[Tensor, "heads size size"]) -> Float[Tensor, "rows n"]:
    heads = rows.double().unflatten(0, turns.shape[:2])
    turned: Tensor = (turns @ heads).flatten(0, 1)
    return turned.to(rows.dtype)


def _matrix(model: PreTrainedModel, attention: Attention, *, role: str) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a role, zeros included."""
    layer = model.get_submodule(attention.paths[role])
    dense = layer.to_dense() if isinstance(layer, StructuredLayer) else layer
    weight, bias = weight_of(dense), bias_of(dense)
    rows = attention.rows(weight, role=role)
    return rows, None if bias is None else attention.rows(bias.detach(), role=role)


def _taken_apart(model: PreTrainedModel, attention: Attention) -> FusedLinear:
    """Return the matrix that makes all three as a layer with a part for each, which it becomes if it is none yet."""
    path, fusion = attention.paths["query"], attention.fusion
    layer = model.get_submodule(path)
    assert fusion is not None
    if not isinstance(layer, FusedLinear):
        parts = [SubmatrixLinear.of(rows) for rows in fusion.split(weight_of(layer))]
        layer = FusedLinear.of(parts, bias=bias_of(layer), runs=fusion.runs)
        replace_module(model, path, module=layer)
    return layer
