"""Published names, each a form and a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kronpress.errors import KronpressError, did_you_mean, shown
from kronpress.factorize.fits import FITS
from kronpress.factorize.forms import FORMS

PRESETS: Mapping[str, tuple[str, str]] = {
    "van_loan": ("kronecker", "nearest"),  # KnGPT2, KroneckerBERT, TQCompressor
    "van_loan_normalized": ("kronecker", "normalized"),  # Krony-PT, section 3.2
    "pruning": ("kronecker", "channels"),  # Krony-PT, section 3.4
    "van_loan_whitened": ("kronecker", "whitened"),
    "van_loan_frequency": ("kronecker", "frequency"),  # GroupReduce, section 3.1; with groups section 3.2
    "svd": ("low_rank", "nearest"),
    "svd_whitened": ("low_rank", "whitened"),  # SVD-LLM
    "tensor_train": ("tensor_train", "nearest"),  # TTM
    "tensor_train_rows": ("tensor_train_rows", "nearest"),  # TensorGPT
    "monarch": ("monarch", "nearest"),  # Dao et al., 2022
    "losparse": ("losparse", "nearest"),  # LoSparse, without its training
}


def spelled_out(method: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the form and the fit that a method stands for, as a recipe gives them.

    Args:
        method: a published name, or a mapping with `name` and fields of its form and its fit.

    Raises:
        KronpressError: neither name nor mapping, an unknown name, or a field of neither.
    """
    fields = {"name": method} if isinstance(method, str) else method
    name = fields.get("name") if isinstance(fields, dict) else None
    if not isinstance(name, str):
        raise KronpressError(f"method is {shown(method)}; give a name or a mapping with one: {', '.join(PRESETS)}")
    if name == "calibrated_pruning":
        raise KronpressError("calibrated_pruning is a step of its own: write step: prune, with keep: 0.5")
    if name not in PRESETS:
        raise KronpressError(f"unknown method {shown(name)}: {did_you_mean(name, PRESETS)}")
    form, fit = PRESETS[name]
    if "groups" in fields:
        form = "grouped" if form == "kronecker" and fit == "frequency" else form
    split: dict[str, dict[str, Any]] = {"form": {"name": form}, "fit": {"name": fit}}
    for key, value in fields.items():
        if key == "name":
            continue
        part = next((part for part, own in _fields(form, fit).items() if key in own), None)
        if part is None:
            known = [own for owns in _fields(form, fit).values() for own in owns]
            raise KronpressError(f"method {name}: unknown key {shown(key)}: {did_you_mean(key, known)}{elsewhere(key)}")
        split[part][key] = value
    return split["form"], split["fit"]


def elsewhere(key: Any) -> str:
    """Say where a field belongs that stands in a wrong place; nothing where no form and no fit has it."""
    places = [f"form: {{name: {name}, {key}: …}}" for name, form in FORMS.items() if key in form.model_fields]
    places += [f"fit: {{name: {name}, {key}: …}}" for name, fit in FITS.items() if key in fit.model_fields]
    return f"; it belongs to {' or '.join(places)}" if places else ""


def _fields(form: str, fit: str) -> dict[str, list[str]]:
    return {"form": list(FORMS[form].model_fields), "fit": list(FITS[fit].model_fields)}
