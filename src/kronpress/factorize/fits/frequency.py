"""Factors of a token table that are nearest for the tokens of a text, not for the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from kronpress.activations import Curvature
from kronpress.activations.head import head_moment
from kronpress.errors import KronpressError
from kronpress.factorize.fits.fit import FITS, Fit
from kronpress.factorize.forms import Form, Metric, Norm
from kronpress.factorize.target import Target
from kronpress.families import Site, window_of
from kronpress.layers import scale_of, weight_of
from kronpress.step import Workbench

_AROUND = ("cls", "sep", "mask", "bos", "eos")
_TOKENS_PER_TEXT = 100
_FIRST = 100  # tokens whose numbers say little: signs and bytes


@FITS.enroll
class Frequency(Fit):
    """The nearest factors where each row counts as often as its token occurs in the training text.

    With `right: [1, columns]` these are the low-rank factors weighted by frequency of GroupReduce (Chen et al., 2018,
    section 3.1). The reported error is weighted too. Tokens that stand around or between texts, such as [CLS], count
    as one in a hundred, though the text does not show them.

    Attributes:
        tokens: how many tokens of the training text are counted, from its start; by default all.
        smoothing: what is added to every count, so that a token which does not occur is not given up.
        prior: what share of all weight goes by the numbers of the tokens, 1 / (number + 100) for each: tokenizers
            number their most frequent merges first. Rare tokens that the text lacks get their due so.
        curvature: also weigh the columns by what their errors do to the loss, where the table is read and, if it is
            the output head too, where it scores (see `Curvature`); for low-rank factors. By default all count alike.
    """

    kind: ClassVar[str] = "frequency"
    norm: ClassVar[Norm] = "rows"
    reads_text: ClassVar[bool] = True
    tokens: int | None = Field(default=None, ge=1)
    smoothing: float = Field(default=0.5, gt=0)
    prior: float = Field(default=0.0, ge=0, lt=1)
    curvature: Curvature | None = None

    def require(self, target: Target, form: Form) -> None:
        """Check that the matrix is a table, and that factors of whole rows are asked for."""
        if not target.table:
            raise KronpressError(f"{self.kind} is for token tables, not {target.path}; set sites: embedding")
        problems = form.problems(target)
        shape = problems[0].shape
        if shape.m2 != 1:
            rows, columns = target.matrix
            raise KronpressError(
                f"{target.path} ({rows} × {columns}): {self.kind} needs right factors that are rows, not "
                f"{shape.m2} × {shape.n2}; choose right: [1, {shape.n2}]"
            )
        if self.curvature is not None and shape.n1 != 1:
            raise KronpressError(
                f"{target.path}: curvature is for low-rank factors, not right factors with {shape.n2} of "
                f"{target.matrix[1]} columns; choose right: [1, {target.matrix[1]}], or leave curvature out"
            )
        for name in ("levels", "permute"):
            default = type(form).model_fields[name].default if name in type(form).model_fields else None
            if getattr(form, name, None) != default:
                raise KronpressError(f"{name}: {getattr(form, name)} goes with fit: nearest, not {self.kind}")

    def check(self, bench: Workbench, sites: Sequence[Site]) -> None:
        """Check that there is text, and a loss where its curvature is asked for."""
        bench.training_ids(tokens=1)
        if self.curvature is not None:
            self.curvature.check(bench.student)
            size = window_of(bench.student)
            bench.training_windows(size=size, tokens=size)

    def metric(self, bench: Workbench, site: Site) -> Metric:
        """Weigh the rows of a table by the counts of its tokens, and its columns by the curvature of the loss."""
        weight = weight_of(bench.student.get_submodule(site.path))
        counts = self._counts(bench, len(weight)).to(weight.device)
        return Metric(self._columns(bench, site), counts)

    def _columns(self, bench: Workbench, site: Site) -> Float[Tensor, "columns columns"] | None:
        """Return what errors of a row do to the loss, in nats, where its token is read and where it is scored."""
        if self.curvature is None:
            return None
        model = bench.student
        windows = bench.training_windows(size=window_of(model), tokens=self.curvature.tokens)
        read = self.curvature.measure(model, windows, paths=[site.path], seed=bench.seed)[site.path]
        read = read * scale_of(model.get_submodule(site.path)) ** 2
        scored = head_moment(model, windows) if model.config.tie_word_embeddings else None
        return read if scored is None else read + scored

    def _counts(self, bench: Workbench, rows: int) -> Float[Tensor, " rows"]:
        seen = bench.training_counts(rows, tokens=self.tokens)
        counts = seen.double() + self.smoothing
        around = [getattr(bench.tokenizer, f"{name}_token_id") for name in _AROUND]
        counts[[token for token in around if token is not None and token < rows]] += int(seen.sum()) / _TOKENS_PER_TEXT
        if not self.prior:
            return counts
        numbered = 1 / (torch.arange(rows, dtype=torch.float64) + _FIRST)
        return (1 - self.prior) * counts + self.prior * counts.sum() * numbered / numbered.sum()
