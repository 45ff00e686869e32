"""The prune step of a recipe."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, SerializeAsAny, field_validator
from transformers import PreTrainedModel

from kronpress.activations import walk
from kronpress.checkpoint import adopt, settle_ties
from kronpress.errors import KronpressError
from kronpress.families import FeedForward, Layout, layout, replace_module
from kronpress.layers import StructuredLayer, stored_numbers, weight_of
from kronpress.prune.feed_forward import FeedForwardStatistic, Kept
from kronpress.prune.forms import PRUNED_FORMS, Narrow, PrunedForm, fractions_of
from kronpress.prune.surgeon import PRUNE_FITS, Surgeon
from kronpress.records import FactorizeRecord, LayerChange
from kronpress.step import STEPS, Needs, Step, Workbench
from kronpress.validation import parse_named


@STEPS.enroll
class Prune(Step):
    """Keep a share of each feed-forward block's hidden neurons, chosen on text; re-solve the down-projection.

    The text streams through the dense and the compressed model together, block by block.

    Attributes:
        keep: share of the hidden neurons to keep.
        form: what stands there afterwards: `narrow`, a plain narrower block that opens without kronpress; or
            `kronecker`, the same function over all hidden neurons, whose silent half can be trained.
        fit: how neurons are chosen and the down-projection is found: `surgeon`, by name or with its fields.
    """

    kind: ClassVar[str] = "prune"
    keep: float = Field(default=0.5, gt=0, lt=1)
    form: SerializeAsAny[PrunedForm] = Narrow()
    fit: SerializeAsAny[Surgeon] = Surgeon()

    @field_validator("form", mode="before")
    @classmethod
    def _named_form(cls, value: Any) -> PrunedForm:
        form: PrunedForm = parse_named(value, PRUNED_FORMS, key="form")
        return form

    @field_validator("fit", mode="before")
    @classmethod
    def _named_fit(cls, value: Any) -> Surgeon:
        fit: Surgeon = parse_named(value, PRUNE_FITS, key="fit", default=Surgeon.kind)
        return fit

    def needs(self) -> Needs:
        """Return that text is read; the dense stream is that of the student before it is changed."""
        return Needs(teacher=False)

    def check(self, bench: Workbench) -> None:
        """Check the share, and that the text has a window."""
        self._kept(bench.student, layout(bench.student))
        window = self.fit.window_of(bench.student)
        bench.training_windows(size=window, tokens=window)

    def run(self, bench: Workbench) -> FactorizeRecord:
        """Prune every feed-forward block of the student."""
        model = bench.student
        settle_ties(model)
        plan = layout(model)
        keep, window = self._kept(model, plan), self.fit.window_of(model)
        blocks = {block.block: block for block in plan.feed_forwards}
        changes = []

        def wanted(index: int) -> list[FeedForwardStatistic]:
            return [FeedForwardStatistic(model, blocks[index])] if index in blocks else []

        windows = bench.training_windows(size=window, tokens=self.fit.tokens)
        for stop in walk(model, windows, wanted=wanted, with_dense=True, description="calibrated pruning"):
            for statistic in stop.statistics:
                kept = self.fit.solve(statistic, keep=keep)
                changes.append(self._install(model, statistic.block, kept))
                stop.leaving = statistic.leaving(kept)
        if self.form.plain:
            plan.family.set_width(model.config, keep)
        adopt(model)
        fit = {"name": self.fit.kind, **self.fit.model_dump(mode="json"), "window": window}
        method = {"keep": self.keep, "form": {"name": self.form.kind, **self.form.model_dump(mode="json")}, "fit": fit}
        parameters = stored_numbers(model)
        return FactorizeRecord(method=method, modules=tuple(changes), notes=(), parameters=parameters)

    def _kept(self, model: PreTrainedModel, plan: Layout) -> int:
        """Return how many neurons stay."""
        for path in (path for block in plan.feed_forwards for path in block.paths):
            if isinstance(model.get_submodule(path), StructuredLayer):
                raise KronpressError(f"{path} has factors or codes already; prune first")
        width = weight_of(model.get_submodule(plan.feed_forwards[0].down)).shape[1]
        kept = round(self.keep * width)
        if not self.form.allows(kept, width=width):
            raise KronpressError(
                f"keep: {self.keep} of {width} hidden neurons; the form {self.form.kind} takes {fractions_of(width)}, …"
            )
        return kept

    def _install(self, model: PreTrainedModel, block: FeedForward, kept: Kept) -> LayerChange:
        before = _count(model, block)
        for path in block.expanding:
            producing = self.form.producing(model.get_submodule(path), kept, block=block, path=path)
            replace_module(model, path, module=producing)
        replace_module(model, block.down, module=self.form.reading(model.get_submodule(block.down), kept))
        return LayerChange(
            path=block.down.rpartition(".")[0],
            role="feed_forward",
            block=block.block,
            parameters_before=before,
            parameters_after=_count(model, block),
            relative_error=kept.relative_error,
            layer=f"{len(kept.neurons)} hidden neurons",
        )


def _count(model: PreTrainedModel, block: FeedForward) -> int:
    return sum(stored_numbers(model.get_submodule(path)) for path in block.paths)
