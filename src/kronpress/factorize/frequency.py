"""Kronecker factors of a token table that are nearest for the tokens of a text, not for the vocabulary."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.factorize.initialization import (
    INITIALIZATIONS,
    Fitted,
    Initialization,
    replace_site,
    settle_head,
    without_tied_head,
)
from kronpress.factorize.request import Request
from kronpress.families import Site
from kronpress.layers import GroupedEmbedding, KroneckerEmbedding, StructuredLayer, weight_of
from kronpress.linalg import KroneckerShape, KroneckerSum, nearest_kronecker_sum
from kronpress.step import Workbench
from kronpress.validation import Checked

_AROUND = ("cls", "sep", "mask", "bos", "eos")
_WORDS_PER_TEXT = 100


class Group(Checked):
    """Tokens whose rows share factors.

    Attributes:
        tokens: how many of them.
        terms: Kronecker products in their sum.
    """

    tokens: int = Field(ge=1)
    terms: int = Field(ge=1)


@INITIALIZATIONS.register("van_loan_frequency")
class VanLoanFrequency(Initialization):
    """The nearest sum of Kronecker products where each row counts as often as its token occurs in the training text.

    With `right: [1, columns]` these are the low-rank factors weighted by frequency of GroupReduce (Chen et al., 2018,
    section 3.1), with `groups` its blocks of tokens of like frequency (section 3.2). The reported error is weighted
    too. Tokens that stand around or between texts, such as [CLS], count as one in a hundred, though the text does not
    show them.

    Attributes:
        groups: the most frequent tokens, the next ones, and so on, with the terms that each group has for itself; what
            remains has those of the request. Rows that factors would not make smaller stay as they are.
        tokens: how many tokens of the training text are counted, from its start; by default all.
        smoothing: what is added to every count, so that a token which does not occur is not given up.
    """

    kind: ClassVar[str] = "van_loan_frequency"
    reads: ClassVar[frozenset[str]] = frozenset({"left", "right", "terms", "head"})
    groups: tuple[Group, ...] = ()
    tokens: int | None = Field(default=None, ge=1)
    smoothing: float = Field(default=0.5, gt=0)

    def check(self, bench: Workbench, request: Request) -> None:
        """Check that the sites are tables, that the shapes divide, and that there is text."""
        for site in self._tables(bench, request):
            layer = bench.student.get_submodule(site.path)
            if not isinstance(layer, StructuredLayer):
                self._shape(layer, site, request)
        bench.training_windows(size=1, tokens=1)

    def apply(self, bench: Workbench, request: Request) -> list[dict[str, Any]]:
        """Replace the token table; the head of a tied model becomes what the request says."""
        fit = partial(self._fit, bench=bench, request=request)
        reports = [replace_site(bench.student, site, partial(fit, site=site)) for site in self._tables(bench, request)]
        settle_head(bench.student, mode=request.head)
        return reports

    def _tables(self, bench: Workbench, request: Request) -> list[Site]:
        model = bench.student
        sites = without_tied_head(model, request)
        for site in sites:
            if not isinstance(model.get_submodule(site.path), nn.Embedding | StructuredLayer):
                raise KronpressError(f"{self.kind} is for token tables, not {site.path}; set sites: embedding")
        return sites

    def _shape(self, layer: nn.Module, site: Site, request: Request) -> KroneckerShape:
        rows, columns = weight_of(layer).shape
        shape = request.shape((rows, columns), site=site)
        if shape.m2 != 1:
            raise KronpressError(
                f"{site.path} ({rows} × {columns}): {self.kind} needs right factors that are rows, not "
                f"{shape.m2} × {shape.n2}; choose right: [1, {shape.n2}]"
            )
        for group in self.groups:
            shape.require_terms(group.terms)
        if (named := sum(group.tokens for group in self.groups)) >= rows:
            raise KronpressError(
                f"{self.kind}: groups name {named} tokens and {site.path} has {rows}; leave some for the rest"
            )
        return shape

    def _fit(self, layer: nn.Module, *, site: Site, bench: Workbench, request: Request) -> Fitted:
        assert isinstance(layer, nn.Embedding)
        shape = self._shape(layer, site, request)
        weight, counts = weight_of(layer), self._counts(bench, layer.num_embeddings).to(layer.weight.device)
        norm = torch.linalg.vector_norm(weight.double() * counts.sqrt()[:, None])
        if not self.groups:
            value = nearest_kronecker_sum(weight, shape=shape, terms=request.terms, row_weights=counts)
            return KroneckerEmbedding.of(value, padding_idx=layer.padding_idx), value.error, float(norm)
        order = counts.argsort(descending=True, stable=True)
        sizes, terms = [group.tokens for group in self.groups], [group.terms for group in self.groups]
        members = order.split([*sizes, len(order) - sum(sizes)])
        values = [
            _nearest(weight[ids], columns=shape.n2, terms=number, counts=counts[ids])
            for ids, number in zip(members, [*terms, request.terms], strict=True)
        ]
        tables = [KroneckerEmbedding.of(value) for value in values]
        table = GroupedEmbedding.of(tables, order.argsort(), padding_idx=layer.padding_idx)
        return table, math.hypot(*(value.error for value in values)), float(norm)

    def _counts(self, bench: Workbench, rows: int) -> Float[Tensor, " rows"]:
        ids = bench.training_windows(size=1, tokens=self.tokens)
        counts = torch.bincount(ids.flatten(), minlength=rows).double() + self.smoothing
        around = [getattr(bench.tokenizer, f"{name}_token_id") for name in _AROUND]
        counts[[id_ for id_ in around if id_ is not None and id_ < rows]] += ids.numel() / _WORDS_PER_TEXT
        return counts


def _nearest(
    weight: Float[Tensor, "rows columns"], *, columns: int, terms: int, counts: Float[Tensor, " rows"]
) -> KroneckerSum:
    """Return the factors of some rows, or the rows as they are where those hold no more numbers."""
    shape = KroneckerShape.of_right((weight.shape[0], weight.shape[1]), right=(1, columns))
    if terms * shape.parameters >= weight.numel():
        return KroneckerSum(weight[None], weight.new_ones(1, 1, 1))
    return nearest_kronecker_sum(weight, shape=shape, terms=terms, row_weights=counts)
