"""The prune step of a recipe."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, SerializeAsAny, field_validator, model_validator
from transformers import PreTrainedModel

from kronpress.activations import Statistic, Stop, WalkProgress, curvatures, walk
from kronpress.checkpoint import adopt, settle_ties
from kronpress.errors import KronpressError
from kronpress.families import FeedForward, Layout, layout, replace_module
from kronpress.layers import stored_numbers, weight_of
from kronpress.prune.feed_forward import FeedForwardStatistic
from kronpress.prune.forms import PRUNED_FORMS, Narrow, PrunedForm, fractions_of
from kronpress.prune.heads import Heads
from kronpress.prune.readout import Kept
from kronpress.prune.rows import count, require_dense
from kronpress.prune.surgeon import PRUNE_FITS, Surgeon
from kronpress.records import FactorizeRecord, LayerChange
from kronpress.step import STEPS, Needs, Step, Workbench
from kronpress.validation import parse_named


@STEPS.enroll
class Prune(Step):
    """Keep a share of what a block computes inside, chosen on text; re-solve the matrix that reads it.

    The text streams through the dense and the compressed model together, block by block. Hidden neurons of the
    feed-forward block go, and with `query_key` and `value_output` numbers of the attention's heads, with `heads` whole
    heads; then the output matrix is solved anew in either case.

    Attributes:
        keep: share of the hidden neurons to keep; null: all as they are.
        query_key: share of the numbers of queries and keys to keep, or null.
        value_output: share of the numbers of values to keep, and of those that the output matrix reads; or null.
        heads: share of the attention's heads to keep, in groups that share a key and a value; or null.
        form: what stands there afterwards: `narrow`, a plain narrower block that opens without kronpress; or
            `kronecker`, the same function over all hidden neurons, whose silent half can be trained.
        fit: how neurons are chosen and the down-projection is found: `surgeon`, by name or with its fields.
    """

    kind: ClassVar[str] = "prune"
    keep: float | None = Field(default=0.5, gt=0, lt=1)
    query_key: float | None = Field(default=None, gt=0, le=1)
    value_output: float | None = Field(default=None, gt=0, le=1)
    heads: float | None = Field(default=None, gt=0, lt=1)
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

    @model_validator(mode="after")
    def _prunes(self) -> Prune:
        smaller = self.query_key is not None or self.value_output is not None
        if self.keep is self.heads is None and not smaller:
            raise KronpressError("keep, query_key, value_output and heads are all null; give a share for one of them")
        if self.heads is not None and smaller:
            raise KronpressError("heads removes whole heads, query_key and value_output make them smaller; give either")
        return self

    def needs(self) -> Needs:
        """Return that text is read; the dense stream is that of the student before it is changed."""
        return Needs(teacher=False, copies=1)

    def works_by_block(self, student: PreTrainedModel) -> bool:
        """Say whether no gradients of the whole model are taken: block by block is how the rest works."""
        return self.fit.curvature is None

    def check(self, bench: Workbench) -> None:
        """Check the shares, and that the text has a window."""
        plan = layout(bench.student)
        self._neurons(bench.student, plan)
        self._heads(bench.student, plan)
        window = self.fit.window_of(bench.student)
        bench.training_windows(size=window, tokens=window)
        if self.fit.curvature is not None:
            self.fit.curvature.check(bench.student)

    def run(self, bench: Workbench) -> FactorizeRecord:
        """Prune every block of the student."""
        model = bench.student
        settle_ties(model)
        plan, window = layout(model), self.fit.window_of(model)
        neurons, heads = self._neurons(model, plan), self._heads(model, plan)

        windows = bench.training_windows(size=window, tokens=self.fit.tokens)
        changed = [] if heads is None else [attention.adding for attention in plan.attentions]
        changed += [] if neurons is None else [block.adding for block in plan.feed_forwards]
        bends = curvatures(self.fit.curvature, model, windows, paths=changed, seed=bench.seed)

        def wanted(index: int) -> list[Statistic]:
            found: list[Statistic] = []
            if heads is not None:
                attention = plan.attentions[index]
                found += heads.statistics(model, attention, curvature=bends.get(attention.adding))
            if neurons is not None:
                block = plan.feed_forwards[index]
                found.append(FeedForwardStatistic(model, block, curvature=bends.get(block.adding)))
            return found

        progress = WalkProgress.of(bench.unfinished, model, windows, facts=self._method(window), kind=LayerChange)
        stops = walk(
            model, windows, wanted=wanted, with_dense=True, progress=progress, description="calibrated pruning"
        )
        for stop in stops:
            self._change(model, stop, heads, neurons=neurons)
            stop.statistics = ()  # whose memory the next ones need
        if neurons is not None and self.form.plain:
            plan.family.set_width(model.config, neurons)
        if heads is not None:
            heads.tell(model.config, plan.attentions[0])
        adopt(model)
        modules, parameters = progress.finish(), stored_numbers(model)
        return FactorizeRecord(method=self._method(window), modules=modules, notes=(), parameters=parameters)

    def _change(
        self, model: PreTrainedModel, stop: Stop[Statistic], heads: Heads | None, *, neurons: int | None
    ) -> None:
        """Prune what the statistics of a stop are about."""
        for statistic in stop.statistics:
            if isinstance(statistic, FeedForwardStatistic):
                assert neurons is not None
                kept = self.fit.solve(statistic.readout(), keep=neurons).to(statistic.weight.dtype)
                stop.changes.append(self._install(model, statistic.block, kept))
                stop.leaving = statistic.leaving(kept)
            elif heads is not None:
                stop.changes += heads.thin(model, statistic, self.fit)

    def _method(self, window: int) -> dict[str, Any]:
        shares = {name: getattr(self, name) for name in ("keep", "query_key", "value_output", "heads")}
        form = {"name": self.form.kind, **self.form.model_dump(mode="json")}
        fit = {"name": self.fit.kind, **self.fit.model_dump(mode="json"), "window": window}
        return {name: share for name, share in shares.items() if share is not None} | {"form": form, "fit": fit}

    def _heads(self, model: PreTrainedModel, plan: Layout) -> Heads | None:
        """Return what stays of the heads, if any of it goes."""
        if self.heads is not None:
            return Heads.whole(model, plan, share=self.heads)
        if self.query_key is self.value_output is None:
            return None
        return Heads.of(model, plan, query_key=self.query_key, value_output=self.value_output)

    def _neurons(self, model: PreTrainedModel, plan: Layout) -> int | None:
        """Return how many neurons stay, if any go."""
        if self.keep is None:
            return None
        require_dense(model, (path for block in plan.feed_forwards for path in block.paths))
        width = weight_of(model.get_submodule(plan.feed_forwards[0].down)).shape[1]
        kept = round(self.keep * width)
        if not self.form.allows(kept, width=width):
            raise KronpressError(
                f"keep: {self.keep} of {width} hidden neurons; the form {self.form.kind} takes {fractions_of(width)}, …"
            )
        return kept

    def _install(self, model: PreTrainedModel, block: FeedForward, kept: Kept) -> LayerChange:
        before = count(model, block.paths)
        for path in block.expanding:
            producing = self.form.producing(model.get_submodule(path), kept, block=block, path=path)
            replace_module(model, path, module=producing)
        replace_module(model, block.down, module=self.form.reading(model.get_submodule(block.down), kept))
        return LayerChange(
            path=block.down.rpartition(".")[0],
            role="feed_forward",
            block=block.block,
            parameters_before=before,
            parameters_after=count(model, block.paths),
            relative_error=kept.relative_error,
            layer=f"{len(kept.neurons)} hidden neurons",
        )
