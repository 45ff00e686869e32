"""What every form, every fit and every preset on the shelves must satisfy: exact where it can be, honest elsewhere.

Forms and fits are tried in all pairs that go together, with the fields below or, without such, with their defaults.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
import torch

from kronpress.checkpoint import structured_layers
from kronpress.errors import KronpressError
from kronpress.factorize import FITS, FORMS, PRESETS, Factorize, Target
from kronpress.layers import weight_of
from kronpress.validation import parse
from tests.tiny import bench, logits, tiny_gpt2, tiny_llama

Fields = dict[str, Any]
FORM_FIELDS: dict[str, list[Fields]] = {  # for forms that need them: fields that make a matrix smaller
    "kronecker": [
        {"right": (2, 2), "terms": 2},
        {"left": (4, 8)},
        {"right": (1, 2), "scales": True},
        {"right": (1, 4)},
    ],
    "low_rank": [{}, {"ratio": 0.9}, {"joint": True}],
    "tensor_train": [{"rank": 2}, {"rank": 3, "redundant": True}, {"rank": 1, "bias": False}],
    "tensor_train_rows": [{"rank": 1}, {"rank": 1, "modes": (4, 4)}],
    "losparse": [{}, {"ratio": 0.9, "sparse": 0.3}],
    "monarch": [{"blocks": 2}, {"blocks": 2, "ratio": 0.9}],
    "grouped": [{"groups": [{"tokens": 8, "terms": 2}], "right": (1, 4)}, {"ratio": 0.5}],
}
FIT_FIELDS: dict[str, Fields] = {"whitened": {"tokens": 64, "window": 32}}


def step(form: str, fit: str, fields: Fields, *, sites: str | None = None, **more: Any) -> Factorize:
    made: Factorize = parse(
        Factorize,
        {
            "form": {"name": form, **fields},
            "fit": {"name": fit, **FIT_FIELDS.get(fit, {})},
            "sites": sites or ("embedding" if for_tables(form, fit) else "all"),
            **more,
        },
        place="s",
    )
    return made


def for_tables(form: str, fit: str) -> bool:
    return not FORMS[form].linear or FITS[fit].norm == "rows"


@cache
def cases(form: str, fit: str) -> tuple[str, ...]:
    """The fields, written out, with which the form can be fitted so; none where the two do not go together."""
    found = []
    for fields in FORM_FIELDS.get(form, [{}]):
        try:
            step(form, fit, fields).check(bench(tiny_gpt2(), Path(gettempdir())))
        except KronpressError:
            continue
        found.append(repr(fields))
    return tuple(found)


PAIRS = [(form, fit) for form in FORMS for fit in FITS if cases(form, fit)]
CASES = [(form, fit, fields) for form, fit in PAIRS for fields in cases(form, fit)]
EVERY_PAIR = pytest.mark.parametrize(("form", "fit"), PAIRS)
EVERY_CASE = pytest.mark.parametrize(("form", "fit", "fields"), CASES)


def first(form: str, fit: str) -> Fields:
    return read(cases(form, fit)[0])


def read(fields: str) -> Fields:
    known: Fields = eval(fields)
    return known


def test_every_form_has_a_fit_and_every_fit_a_form() -> None:
    assert {form for form, _ in PAIRS} == set(FORMS)
    assert {fit for _, fit in PAIRS} == set(FITS)


@pytest.mark.parametrize(("form", "fit"), [(form, fit) for form in FORMS for fit in FITS if not cases(form, fit)])
def test_what_does_not_go_together_is_refused_in_a_sentence(form: str, fit: str) -> None:
    with pytest.raises(KronpressError, match=f"fit: {fit} .*form: {form}|form: .*not {form}"):
        step(form, fit, FORM_FIELDS.get(form, [{}])[0])


@pytest.mark.parametrize(("form", "fit", "fields"), [case for case in CASES if FITS[case[1]].norm == "frobenius"])
@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2])
def test_the_error_is_that_of_the_new_weight(build: Any, form: str, fit: str, fields: str, tmp_path: Path) -> None:
    work = bench(build(), tmp_path)
    for change in step(form, fit, read(fields)).run(work).modules:
        before = weight_of(work.teacher.get_submodule(change.path))
        after = weight_of(work.student.get_submodule(change.path).to_dense())
        error = ((before - after).norm() / before.norm()).item()
        assert change.relative_error == pytest.approx(error, rel=1e-4, abs=1e-6)
        assert 0 < change.parameters_after < change.parameters_before


@EVERY_CASE
def test_it_is_exact_on_what_it_makes_itself(form: str, fit: str, fields: str, tmp_path: Path) -> None:
    path = "model.embed_tokens" if for_tables(form, fit) else "model.layers.1.mlp.up_proj"
    once = bench(tiny_llama(), tmp_path)
    made = step(form, fit, read(fields), sites=path)
    made.run(once)
    model = tiny_llama()
    weight_of(model.get_submodule(path)).copy_(once.student.get_submodule(path).to_dense().weight)
    again = bench(model, tmp_path)
    (change,) = made.run(again).modules
    assert change.relative_error < 2e-5
    torch.testing.assert_close(logits(again.student), logits(model), atol=2e-4, rtol=2e-4)


@EVERY_PAIR
def test_it_touches_only_what_is_asked_for_and_never_the_teacher(form: str, fit: str, tmp_path: Path) -> None:
    model = tiny_gpt2()
    expected = logits(model)
    work = bench(model, tmp_path)
    tables = for_tables(form, fit)
    where = {} if tables else {"sites": "up", "skip_blocks": (0, 2)}
    step(form, fit, first(form, fit), **where).run(work)
    assert torch.equal(logits(model), expected)
    changed = {"transformer.wte", "lm_head"} if tables else {"transformer.h.1.mlp.c_fc"}
    assert set(structured_layers(work.student)) == changed


@pytest.mark.parametrize(("form", "fit"), [pair for pair in PAIRS if not for_tables(*pair)])
def test_the_bias_is_kept(form: str, fit: str, tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    step(form, fit, first(form, fit)).run(work)
    for path, layer in structured_layers(work.student).items():
        bias = work.teacher.get_submodule(path).bias
        assert torch.equal(layer.to_dense().bias, bias)
        assert all(parameter.data_ptr() != bias.data_ptr() for parameter in layer.parameters())


@EVERY_CASE
def test_the_spec_is_that_of_the_layer_before_any_number_is_looked_at(
    form: str, fit: str, fields: str, tmp_path: Path
) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    made = step(form, fit, read(fields))
    dense = {site.path: (site, work.student.get_submodule(site.path)) for site in made.sites_of(work.student)}
    targets = {path: Target.of(site, layer) for path, (site, layer) in dense.items() if not site.shares}
    specs = {path: made.form.spec(target) for path, target in targets.items()}
    made.run(work)
    for path, spec in specs.items():
        layer = work.student.get_submodule(path)
        if form == "grouped" and "ratio" in fields:  # the groups are found by the numbers
            assert spec.matrix == layer.spec.matrix
        else:
            assert spec == layer.spec
        fresh = layer.spec.build(device="meta")  # as a checkpoint opens: optimizer states go by the order of parameters
        assert [name for name, _ in layer.named_parameters()] == [name for name, _ in fresh.named_parameters()]


FORM_CHANGES: dict[str, Fields] = {  # other values than those of the first fields, for fields of more than a number
    "kronecker": {"left": (24, 4), "right": (1, 4), "scales": True, "levels": 2, "permute": "all"},
    "tensor_train": {"rank": 3, "modes": [[4, 4], [6, 4]], "redundant": True, "bias": False},
    "tensor_train_rows": {"modes": (2, 8)},
    "monarch": {"blocks": 4},
    "low_rank": {"joint": True},
    "losparse": {"sparse": 0.3},
    "grouped": {"groups": [{"tokens": 8, "terms": 3}], "right": (1, 2), "ratio": 0.5},
}
INSTEAD: dict[tuple[str, str], Fields] = {  # fields that another one takes the place of
    ("kronecker", "left"): {"right": None},
    ("grouped", "ratio"): {"groups": [], "right": None},
}
BASES: dict[str, Fields] = {
    "kronecker": {"right": (1, 2)},
    "tensor_train": {"rank": 20, "modes": [[12, 4], [2, 4]]},
}


def changed(form: str, field: str) -> Any:
    """Another value of a field: the one above, or of a number a larger one."""
    if field in FORM_CHANGES.get(form, {}):
        return FORM_CHANGES[form][field]
    now = getattr(FORMS[form](**base_of(form)), field)
    return now * 1.5 if isinstance(now, float) else now + 1


def base_of(form: str) -> Fields:
    return BASES.get(form, FORM_FIELDS.get(form, [{}])[0])


def shapes_of(form: str, fields: Fields, folder: Path, *, sites: str) -> dict[str, torch.Size]:
    work = bench(tiny_gpt2() if form == "tensor_train" or sites == "qkv" else tiny_llama(), folder)
    made = step(form, "frequency" if form == "grouped" else "nearest", fields, sites=sites)
    made.check(work)
    made.run(work)
    return {key: value.shape for key, value in work.student.state_dict().items()}


@pytest.mark.parametrize(
    ("form", "field"), [(name, field) for name, form in FORMS.items() for field in form.model_fields]
)
def test_a_field_of_a_form_changes_the_model(form: str, field: str, tmp_path: Path) -> None:
    tables = not FORMS[form].linear or field == "levels"
    sites = "embedding" if tables else "qkv" if field == "joint" else "up"
    other = base_of(form) | {field: changed(form, field)} | INSTEAD.get((form, field), {})
    assert shapes_of(form, base_of(form), tmp_path, sites=sites) != shapes_of(form, other, tmp_path, sites=sites)


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_published_name_stands_for_a_form_and_a_fit(name: str) -> None:
    form, fit = PRESETS[name]
    fields, options = FORM_FIELDS[form][0], FIT_FIELDS.get(fit, {})
    made = Factorize(method={"name": name, **fields, **options})
    assert made == Factorize(form={"name": form, **fields}, fit={"name": fit, **options})


@EVERY_PAIR
def test_the_repr_of_form_and_fit_reads_like_the_recipe(form: str, fit: str) -> None:
    made = step(form, fit, first(form, fit))
    assert repr(made.form).startswith(type(made.form).__name__ + "(")
    named = {"form": {"name": form, **made.form.model_dump()}, "fit": {"name": fit, **made.fit.model_dump()}}
    assert Factorize(**named, sites=made.sites) == made
