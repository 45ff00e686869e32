"""Whether what was loaded into a model with structured layers is all of it, and nothing else."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from kronpress.errors import KronpressError

_REMEDY = "config.json and the weights are not of one model, or a file is incomplete: copy or download them again"


def require_whole(model: PreTrainedModel, info: Any, *, structured: list[str]) -> None:
    """Check that every stored tensor was read, and that every tensor of the model was stored, with its shape.

    A head may be new, or left out, where the checkpoint was saved from a model of another class; and so may a pooler.

    Args:
        model: what was loaded.
        info: what transformers says about it (`LoadStateDictInfo`).
        structured: the paths of the structured layers.

    Raises:
        KronpressError: a tensor is missing, has another shape or was not read.
    """
    name = model.config.name_or_path
    place = "the checkpoint" if name in ("", "None") else name  # "None": tensors were given in place of a folder
    for key, stored, expected in sorted(info.mismatched_keys):
        if _inside(model, key, structured):  # for a head transformers raises an error, unless it is told to ignore it
            info.mismatched_keys = set()
            raise KronpressError(
                f"{place}: the weight '{key}' has the shape {tuple(stored)} where config.json calls for "
                f"{tuple(expected)}; {_REMEDY}"
            )
    missing = {key for key in info.missing_keys if _matters(model, key, structured)} - _whole_pooler(model, info)
    unread = {key for key in info.unexpected_keys if _matters(model, key, structured)} - _unused_pooler(model, info)
    if missing:
        raise KronpressError(
            f"{place} lacks {len(missing)} weights that its config.json calls for, the first being '{min(missing)}'; "
            f"{_REMEDY}"
        )
    if unread:
        raise KronpressError(
            f"{place} holds {len(unread)} weights that its config.json does not call for, the first being "
            f"'{min(unread)}'; {_REMEDY}"
        )


def _matters(model: PreTrainedModel, key: str, structured: list[str]) -> bool:
    """Say whether a tensor has to be stored and read; that of a head where the head was saved as well."""
    return type(model).__name__ in (model.config.architectures or ()) or _inside(model, key, structured)


def _inside(model: PreTrainedModel, key: str, structured: list[str]) -> bool:
    """Say whether a tensor belongs to the base model or to a structured layer."""
    base: Any = model.base_model
    part = key.removeprefix(f"{model.base_model_prefix}.").partition(".")[0]
    return part in dict(base.named_children()) or key.startswith(tuple(f"{path}." for path in structured))


def _whole_pooler(model: PreTrainedModel, info: Any) -> set[str]:
    """Return the keys of the pooler that a base model gets, with random numbers, where the file has none at all."""
    keys = {key for key in model.state_dict() if ".pooler." in f".{key}"}
    return keys if keys <= set(info.missing_keys) else set()


def _unused_pooler(model: PreTrainedModel, info: Any) -> set[str]:
    """Return the keys of a stored pooler that a model without one leaves out."""
    base: Any = model.base_model
    kept = getattr(base, "pooler", None) is not None
    return set() if kept else {key for key in info.unexpected_keys if ".pooler." in f".{key}"}
