"""The factorize step of a recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from jaxtyping import Float, Int
from pydantic import SerializeAsAny, field_validator, model_validator
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from kronpress.checkpoint import adopt, notes_of, settle_ties
from kronpress.errors import KronpressError, shown
from kronpress.factorize.fits import FITS, Fit, Nearest
from kronpress.factorize.forms import FORMS, Form, Metric
from kronpress.factorize.install import dense_shares, multiply_out, replace_site, settle_head, without_tied_head
from kronpress.factorize.presets import PRESETS, elsewhere, spelled_out
from kronpress.factorize.target import Fitted, Target
from kronpress.families import Blocks, Site, select_sites
from kronpress.layers import stored_numbers
from kronpress.records import FactorizeRecord, LayerChange
from kronpress.step import STEPS, Needs, Step, Workbench
from kronpress.validation import parse_named


@STEPS.enroll
class Factorize(Step):
    """Replace dense modules of the student by layers with factors.

    In place of `form` and `fit`, `method` takes a published name for both, with the fields of both.

    Attributes:
        sites: a role, a group of roles, a glob or `re:` expression (see `kronpress inspect`).
        blocks: `all`, `odd` (1, 3, 5, …), `even` or a list of numbers from 0.
        skip_blocks: blocks left dense all the same.
        form: what stands there afterwards, by name or as a mapping with `name` and its fields.
        fit: how its numbers are found, likewise.
        head: what becomes of the output head where the embedding is factorized: `tied` to the factors, `untied` with
            factors of its own, or `dense` with the full matrix; by default a tied head is tied to the factors, and
            one that has weights of its own keeps them (`tied` drops those, which the report tells).
        again: take linear layers that have factors already, too: they are multiplied out and factorized anew, at a
            lower rank for instance.
    """

    kind: ClassVar[str] = "factorize"
    sites: str = "feed_forward"
    blocks: Blocks = "all"
    skip_blocks: tuple[int, ...] = ()
    form: SerializeAsAny[Form]
    fit: SerializeAsAny[Fit] = Nearest()
    head: Literal["tied", "untied", "dense"] | None = None
    again: bool = False

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        for key in fields:
            if key not in cls.model_fields and key != "method" and elsewhere(key):
                raise KronpressError(f"{key} is no key of the step{elsewhere(key)}")
        if "init" in fields:
            raise KronpressError(
                f"init is no key: write method: {shown(fields['init'])} for a published name ({', '.join(PRESETS)}), "
                "or form and fit"
            )
        if "method" not in fields:
            return fields
        if {"form", "fit"} & fields.keys():
            raise KronpressError("method stands for form and fit together; give either method or form and fit")
        form, fit = spelled_out(fields["method"])
        return {key: value for key, value in fields.items() if key != "method"} | {"form": form, "fit": fit}

    @field_validator("form", mode="before")
    @classmethod
    def _named_form(cls, value: Any) -> Form:
        _refuse_foreign(value, FORMS, key="form")
        form: Form = parse_named(value, FORMS, key="form")
        return form

    @field_validator("fit", mode="before")
    @classmethod
    def _named_fit(cls, value: Any) -> Fit:
        _refuse_foreign(value, FITS, key="fit")
        fit: Fit = parse_named(value, FITS, key="fit")
        return fit

    @model_validator(mode="after")
    def _fitting(self) -> Factorize:
        self.fit.require_form(self.form)
        return self

    def sites_of(self, model: PreTrainedModel) -> list[Site]:
        """Return the sites of the model that the step names.

        Raises:
            KronpressError: none, or the pattern is not understood.
        """
        return without_tied_head(model, self._named(model), head=self.head)

    def _named(self, model: PreTrainedModel) -> list[Site]:
        return select_sites(model, self.sites, blocks=self.blocks, skip_blocks=self.skip_blocks)

    def needs(self) -> Needs:
        """Return whether the fit reads text, and whether it keeps blocks; the student is all that it looks at."""
        return Needs(teacher=False, text=self.fit.reads_text, copies=int(self.fit.keeps_blocks))

    def works_by_block(self, student: PreTrainedModel) -> bool:
        """Say that it does where all sites are in blocks, and only dense layers change, each by itself."""
        inside = all(site.block is not None for site in self.sites_of(student))
        return inside and self.form.by_block() and self.fit.by_block() and not self.again

    def check(self, bench: Workbench) -> None:
        """Check that the sites exist, that their shapes divide, and that no field is without effect."""
        model, sites = bench.student, self.sites_of(bench.student)
        self.fit.check(bench, sites)
        for site in sites:
            for share in dense_shares(model, site, whole=self.form.whole, again=self.again):
                target = Target.of(site, share)
                self.form.require(target)
                self.fit.require(target, self.form)
        self.form.require_effect(model, sites, where=self.sites)
        self._require_head(model)

    def _require_head(self, model: PreTrainedModel) -> None:
        if self.head in (None, "tied"):
            return
        roles = {site.role for site in self._named(model)}
        if "embedding" not in roles:
            raise KronpressError(
                f"head: {self.head} says what becomes of the output head when the embedding is factorized, and sites "
                f"is {shown(self.sites)}; leave it out, or add embedding to sites"
            )
        if model.config.tie_word_embeddings:
            return
        if (self.head == "dense") == ("head" in roles):
            remedy = "leave it out of sites" if self.head == "dense" else "add head to sites"
            raise KronpressError(f"head: {self.head}, but the model's head has its own matrix; {remedy}")

    def run(self, bench: Workbench) -> FactorizeRecord:
        """Replace each site of the student, which saves and trains as a kronpress model from then on."""
        model = bench.student
        settle_ties(model)
        before = len(notes_of(model))
        sites = self.sites_of(model)
        held = {site.path: stored_numbers(model.get_submodule(site.path)) for site in sites}
        if self.again:
            multiply_out(model, sites)
        self.form.prepare(model, sites)

        def put(site: Site, metric: Metric) -> LayerChange:
            def fit(weight: Float[Tensor, "m n"], target: Target, rows: Int[Tensor, " m"] | None) -> Fitted:
                return self.fit.fit(weight, target, form=self.form, metric=metric.at(rows))

            change = replace_site(model, site, fit, whole=self.form.whole)
            return replace(change, parameters_before=held[site.path])

        method = {
            "form": {"name": self.form.kind, **self.form.model_dump(mode="json")},
            "fit": {"name": self.fit.kind, **self.fit.resolved(model).model_dump(mode="json")},
        }
        modules = self.fit.replace(bench, sites, put, facts={**method, "sites": list(held)})
        settle_head(model, mode=self.head)
        adopt(model)
        notes = notes_of(model)[before:]
        for text in notes:
            tqdm.write(f"note: {text}")
        parameters = stored_numbers(model)
        return FactorizeRecord(method=method, modules=tuple(modules), notes=tuple(notes), parameters=parameters)


def _refuse_foreign(value: Any, shelf: Any, *, key: str) -> None:
    """Say where the fields of a form or a fit belong that stand in another one."""
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in shelf:
        return
    for field in value:
        if field != "name" and field not in shelf[name].model_fields and elsewhere(field):
            raise KronpressError(f"{key} {name}: {field} is none of its keys{elsewhere(field)}")
