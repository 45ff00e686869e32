"""What every fit has in common: how the numbers of a form are found."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar, TypeAlias

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.activations import resident
from kronpress.bars import Bar
from kronpress.errors import KronpressError
from kronpress.factorize.forms import FORMS, Form, Metric, Norm, Solution, Solver
from kronpress.factorize.target import Fitted, Target
from kronpress.families import Site
from kronpress.records import LayerChange
from kronpress.registry import Shelf
from kronpress.step import Workbench
from kronpress.validation import Checked

Put: TypeAlias = Callable[[Site, Metric], LayerChange]


class Fit(Checked, ABC):
    """A way to find the numbers of a form; its fields are its hyperparameters.

    Attributes:
        norm: in which errors are measured.
        reads_text: whether the fit looks at the training text.
        keeps_blocks: whether finished blocks are written as they are done, which takes room for one model.
    """

    kind: ClassVar[str]
    norm: ClassVar[Norm] = "frobenius"
    reads_text: ClassVar[bool] = False
    keeps_blocks: ClassVar[bool] = False

    def by_block(self) -> bool:
        """Say whether it looks at one block of the model at a time."""
        return True

    def solve(self, weight: Float[Tensor, "m n"], problem: Any, metric: Metric) -> Solution:
        """Return the factors that one problem of a form asks for: by default the nearest ones."""
        return Solution(problem.nearest(weight, metric))

    def fit(self, weight: Float[Tensor, "m n"], target: Target, *, form: Form, metric: Metric) -> Fitted:
        """Return what stands for a dense weight; no model is changed.

        Raises:
            KronpressError: the form can not stand there, or the fit can not find its numbers.
        """
        form.require(target)
        self.require(target, form)
        layer, error = form.assemble(weight, target, Solver(metric, self.solve))
        return Fitted(layer, error, metric.norm(weight))

    def require(self, target: Target, form: Form) -> None:
        """Check that the fit can find the numbers of a form for a matrix.

        Raises:
            KronpressError: it can not.
        """

    def check(self, bench: Workbench, sites: Sequence[Site]) -> None:
        """Check that the text and the sites give what the fit needs.

        Raises:
            KronpressError: they do not.
        """

    def metric(self, bench: Workbench, site: Site) -> Metric:
        """Return the metric of the weight at a site."""
        return Metric()

    def replace(
        self, bench: Workbench, sites: Sequence[Site], put: Put, *, facts: Mapping[str, Any]
    ) -> Sequence[LayerChange]:
        """Replace the layers at the sites, one after the other.

        Args:
            bench: whose student is changed.
            sites: where.
            put: replaces one, in the metric of its weight.
            facts: what tells this work from others, for one that was interrupted.
        """
        bar, changes = Bar(sites, desc=f"factorize ({self.kind})", unit="site"), list[LayerChange]()
        for block, together in groupby(bar, key=lambda site: site.block):
            with resident(bench.student, block):
                changes += [put(site, self.metric(bench, site)) for site in together]
        return changes

    def resolved(self, model: PreTrainedModel) -> Fit:
        """Return the fit with what its fields come to for this model, where they leave that open."""
        return self

    def require_form(self, form: Form) -> None:
        """Check that the form's problems can be solved in the norm of this fit.

        Raises:
            KronpressError: they can not.
        """
        if self.norm not in form.norms:
            able = [name for name, other in FORMS.items() if self.norm in other.norms]
            fits = [name for name, other in FITS.items() if other.norm in form.norms]
            raise KronpressError(
                f"fit: {self.kind} can not find the numbers of form: {form.kind}; it takes form: {', '.join(able)}, "
                f"and {form.kind} takes fit: {', '.join(fits)}"
            )


FITS: Shelf[type[Fit]] = Shelf("fit")
