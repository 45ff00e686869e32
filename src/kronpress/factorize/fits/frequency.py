"""Factors of a token table that are nearest for the tokens of a text, not for the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.factorize.fits.fit import FITS, Fit
from kronpress.factorize.forms import Form, Metric, Norm
from kronpress.factorize.target import Target
from kronpress.families import Site
from kronpress.layers import weight_of
from kronpress.step import Workbench

_AROUND = ("cls", "sep", "mask", "bos", "eos")
_TOKENS_PER_TEXT = 100


@FITS.enroll
class Frequency(Fit):
    """The nearest factors where each row counts as often as its token occurs in the training text.

    With `right: [1, columns]` these are the low-rank factors weighted by frequency of GroupReduce (Chen et al., 2018,
    section 3.1). The reported error is weighted too. Tokens that stand around or between texts, such as [CLS], count
    as one in a hundred, though the text does not show them.

    Attributes:
        tokens: how many tokens of the training text are counted, from its start; by default all.
        smoothing: what is added to every count, so that a token which does not occur is not given up.
    """

    kind: ClassVar[str] = "frequency"
    norm: ClassVar[Norm] = "rows"
    reads_text: ClassVar[bool] = True
    tokens: int | None = Field(default=None, ge=1)
    smoothing: float = Field(default=0.5, gt=0)

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
        for name in ("levels", "permute"):
            default = type(form).model_fields[name].default if name in type(form).model_fields else None
            if getattr(form, name, None) != default:
                raise KronpressError(f"{name}: {getattr(form, name)} goes with fit: nearest, not {self.kind}")

    def check(self, bench: Workbench, sites: Sequence[Site]) -> None:
        """Check that there is text."""
        bench.training_ids(tokens=1)

    def metric(self, bench: Workbench, site: Site) -> Metric:
        """Weigh the rows of a table by the counts of its tokens."""
        weight = weight_of(bench.student.get_submodule(site.path))
        return Metric(row_weights=self._counts(bench, len(weight)).to(weight.device))

    def _counts(self, bench: Workbench, rows: int) -> Float[Tensor, " rows"]:
        seen = bench.training_counts(rows, tokens=self.tokens)
        counts = seen.double() + self.smoothing
        around = [getattr(bench.tokenizer, f"{name}_token_id") for name in _AROUND]
        counts[[token for token in around if token is not None and token < rows]] += int(seen.sum()) / _TOKENS_PER_TEXT
        return counts
