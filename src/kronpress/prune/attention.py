"""Smaller heads: the numbers of queries and keys, and of values, that a text needs most.

The modules keep their shapes, so that any attention computes with them: what is left out is zero, and not stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.activations import Statistic, noted_outputs
from kronpress.families import Attention, replace_module
from kronpress.layers import SubmatrixLinear, bias_of, narrowed, weight_of
from kronpress.linalg import balance, inputs_of, positive_definite
from kronpress.prune.readout import AddedStatistic, Kept, Readout
from kronpress.prune.rows import count, keep_rows
from kronpress.prune.surgeon import Surgeon

_RIDGE = 1e-8  # for an inverse; what is solved for has the ridge of the fit


class QueryKeyStatistic(Statistic):
    """E[q qᵀ] and E[k kᵀ] of each head, before positions turn them.

    Attributes:
        query: (groups, size, size), summed over the heads that share a key.
        key: (groups, size, size).
    """

    turn: ClassVar[int] = 0

    def __init__(self, model: PreTrainedModel, attention: Attention) -> None:
        self.attention = attention
        shape = (attention.groups, attention.size, attention.size)
        self.query, self.key = (torch.zeros(shape, dtype=torch.float64, device=model.device) for _ in range(2))
        self._last: dict[str, Float[Tensor, "*batch rows"]] = {}

    @contextmanager
    def watching(self, model: PreTrainedModel) -> Iterator[None]:
        """Look at what the matrices put out."""
        paths = [self.attention.paths[role] for role in ("query", "key")]
        with noted_outputs(model, paths) as self._last:
            yield

    def after_compressed(self, index: int, output: Float[Tensor, "windows tokens dim"]) -> None:
        """Take in a batch."""
        for role, moment in (("query", self.query), ("key", self.key)):
            rows = self.attention.rows(self._last[self.attention.paths[role]].flatten(0, -2).T, role=role).float()
            heads = rows.unflatten(0, (-1, self.attention.size))  # heads, size, tokens
            with torch.autocast(rows.device.type, enabled=False):
                products = torch.bmm(heads, heads.mT).double()
            moment += products.unflatten(0, (self.attention.groups, -1)).sum(1)

    def thin(self, model: PreTrainedModel, *, keep: int) -> None:
        """Keep so many numbers of all keys together, and those of the queries that meet them.

        They are those that make the scores q · k nearest to what they are, for queries and keys that are independent.
        Where positions turn them, whole frequencies stay as they are (CR decomposition; MoDeGPT, Type II). Else each
        head first gets coordinates in which the choice is a truncated singular value decomposition.
        """
        if self.attention.rotary:
            sizes = [moment.diagonal(dim1=1, dim2=2).unflatten(1, (2, -1)).sum(1) for moment in (self.query, self.key)]
            chosen = _largest(sizes[0] * sizes[1], keep=keep // 2).repeat(1, 2)
            turns = [torch.eye(self.attention.size, dtype=self.key.dtype, device=self.key.device)] * 2
        else:
            balanced = balance(_definite(self.query), _definite(self.key))
            chosen, turns = _largest(balanced.importance, keep=keep), [balanced.out.mT, balanced.into]
        for role, turn in zip(("query", "key"), turns, strict=True):
            keep_rows(model, self.attention, role=role, chosen=chosen, turn=turn.expand_as(self.key))


class HeadStatistic(AddedStatistic):
    """What the heads of an attention gather, and what it must add to the stream.

    Attributes:
        parameters: what the matrices of the attention store before any of them is changed.
    """

    turn: ClassVar[int] = 1

    def __init__(
        self, model: PreTrainedModel, attention: Attention, *, curvature: Float[Tensor, "out out"] | None = None
    ) -> None:
        super().__init__(model, attention, curvature=curvature)
        self.attention, self.parameters = attention, count(model, attention.matrices)

    def thin(self, model: PreTrainedModel, fit: Surgeon, *, keep: int) -> float:
        """Keep so many numbers of all values together; return the relative error of what the attention adds.

        What is kept of a head's values is the part of them that matters most for what is added. The output matrix is
        solved anew for it, as `Surgeon` does it with hidden neurons.
        """
        attention, readout = self.attention, self.readout()
        bases = self._bases(readout, fit, keep=keep)
        ranks = torch.tensor([len(basis) for basis in bases], device=readout.dense.device)
        chosen = torch.arange(attention.size, device=ranks.device) < ranks[:, None]
        turn = readout.moment.new_zeros(attention.groups, attention.size, attention.size)
        turn[chosen] = torch.cat(bases)
        rows = torch.block_diag(*(basis for basis in bases for _ in range(attention.per_group)))
        solved = fit.solve(readout.turned(rows, rows.T), keep=len(rows)).to(self.weight.dtype)
        keep_rows(model, attention, role="value", chosen=chosen, turn=turn)
        columns = chosen.repeat_interleave(attention.per_group, dim=0).flatten().nonzero()[:, 0]
        whole = torch.zeros_like(self.weight).index_copy(1, columns, solved.weight)
        reading = SubmatrixLinear.of(whole, columns=columns, bias=solved.bias)
        replace_module(model, attention.output, module=reading)
        return solved.relative_error

    def _bases(self, readout: Readout, fit: Surgeon, *, keep: int) -> list[Float[Tensor, "rank size"]]:
        """Return orthonormal rows that span what is kept of the values of each group.

        Each head's values get the coordinates of a truncated singular value decomposition on whitened inputs (MoDeGPT,
        Type III). Of these the least needed ones go, of all heads, one that several heads share for all of them.
        """
        groups, size, shared = self.attention.groups, self.attention.size, self.attention.per_group
        dense = readout.weighed(readout.dense.double()).unflatten(1, (groups, shared, size))
        moment = readout.moment.unflatten(0, (groups, shared, size)).unflatten(-1, (groups, shared, size))
        needed, there = torch.einsum("ogrs,ogrt->gst", dense, dense), torch.einsum("grsgrt->gst", moment)
        balanced = balance(_definite(needed), _definite(there))
        side_by_side = torch.arange(dense[0].numel(), device=dense.device).view(groups, shared, size).mT.flatten()
        into, out = (torch.block_diag(*part.repeat_interleave(shared, dim=0)) for part in (balanced.into, balanced.out))
        turned = readout.turned(into[side_by_side], out[:, side_by_side])
        kept = fit.solve(turned, keep=keep, run=shared).neurons
        rows = balanced.into.flatten(0, 1)
        return [torch.linalg.qr(rows[kept[kept // size == group]].T).Q.T for group in range(groups)]

    def drop(self, model: PreTrainedModel, fit: Surgeon, *, keep: int) -> float:
        """Keep so many groups of heads, whose matrices are dense and smaller; return the relative error.

        Those go that the output matrix, solved anew without them, can best do without.
        """
        attention, per_group = self.attention, self.attention.per_group
        kept = fit.solve(self.readout(), keep=keep, run=per_group * attention.size).to(self.weight.dtype)
        for role, heads in (("query", per_group), ("key", 1), ("value", 1)):
            layer = model.get_submodule(attention.paths[role])
            rows, bias = inputs_of(kept.neurons, run=heads * attention.size), bias_of(layer)
            smaller = narrowed(layer, weight_of(layer)[rows], bias=None if bias is None else bias[rows])
            replace_module(model, attention.paths[role], module=smaller)
        self._read(model, kept)
        return kept.relative_error

    def repair(self, model: PreTrainedModel, fit: Surgeon) -> float:
        """Solve the output matrix anew for all that the heads gather; return the relative error."""
        solved = fit.solve(self.readout(), keep=self.weight.shape[1]).to(self.weight.dtype)
        self._read(model, solved)
        return solved.relative_error

    def _read(self, model: PreTrainedModel, kept: Kept) -> None:
        """Put a dense matrix there that reads what is kept."""
        layer = model.get_submodule(self.attention.output)
        replace_module(model, self.attention.output, module=narrowed(layer, kept.weight, bias=kept.bias))


def _definite(moments: Float[Tensor, "groups n n"]) -> Float[Tensor, "groups n n"]:
    return torch.stack([positive_definite(moment, ridge=_RIDGE)[0] for moment in moments])


def _largest(values: Float[Tensor, "groups n"], *, keep: int) -> Bool[Tensor, "groups n"]:
    chosen = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    chosen[values.flatten().topk(keep).indices] = True
    return chosen.view(values.shape)
