"""Whether the tensors of a checkpoint are those that its config calls for, found out before memory is allocated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import logging

from kronpress.checkpoint.contents import FLOATS, StoredTensor
from kronpress.checkpoint.notes import note
from kronpress.errors import KronpressError
from kronpress.families import family_of

Info = Mapping[str, Any]
_POOLER = re.compile(r"(?:^|\.)pooler\.")
_LEFTOVERS = re.compile(r"(\.attn\.(masked_)?bias|rotary_emb\.inv_freq|position_ids)$")  # buffers of old releases


def rehearse(model_class: Any, config: Any, tensors: Mapping[str, StoredTensor]) -> tuple[PreTrainedModel, Info]:
    """Load tensors of the stored names and shapes, but without memory; return the model and what transformers says."""
    state = {name: torch.empty(tensor.shape, device="meta") for name, tensor in tensors.items()}
    with _quiet():
        model, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=state,
            device_map={"": "meta"},
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    return model, info


def require_float_parameters(
    source: str, model: PreTrainedModel, info: Info, *, tensors: Mapping[str, StoredTensor]
) -> None:
    """Check that stored integers are integers of the model too, such as the orders of our layers.

    Raises:
        KronpressError: they are read as weights.
    """
    others = [*dict(model.named_buffers()), *info.get("unexpected_keys", ())]
    for key, tensor in tensors.items():
        if tensor.number_format not in FLOATS and not any(f".{name}".endswith(f".{key}") for name in others):
            raise KronpressError(
                f"{source}: the weight '{key}' is stored as {tensor.number_format}, and kronpress reads "
                f"{', '.join(FLOATS)}; name the original model, or convert this one"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from reporting a load that is only tried."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def require_complete(source: str, model: PreTrainedModel, info: Info) -> None:
    """Check that no weight is missing or has another shape; a pooler that the file lacks as a whole may be missing.

    Raises:
        KronpressError: one is.
    """
    for key, stored, expected in sorted(info.get("mismatched_keys", ())):
        raise KronpressError(
            f"{source}: the weight '{key}' has the shape {tuple(stored)} where config.json calls for "
            f"{tuple(expected)}; the files are not of one model: copy or download them again"
        )
    missing = sorted(set(info.get("missing_keys", ())) - missing_pooler(model, info))
    if missing:
        raise KronpressError(
            f"{source} lacks {len(missing)} weights that its config.json calls for, the first being '{missing[0]}'; "
            "the files are incomplete or of another model: copy or download them again"
        )


def missing_pooler(model: PreTrainedModel, info: Info) -> set[str]:
    """Return the keys of the pooler that AutoModel adds, with random weights, to an encoder saved without."""
    pooler = getattr(model, "pooler", None)
    keys = {f"pooler.{name}" for name in pooler.state_dict()} if isinstance(pooler, nn.Module) else set()
    return keys if keys and keys <= set(info.get("missing_keys", ())) else set()


def require_all_read(source: str, model: PreTrainedModel, info: Info, *, ours: bool) -> list[str]:
    """Return the stored weights that the model does not read, which may lie outside of its blocks only.

    Args:
        ours: whether kronpress wrote the files, which then hold nothing that is not read.

    Raises:
        KronpressError: a weight of a block, or of a checkpoint of ours, is not read.
    """
    unread = sorted(
        key for key in info.get("unexpected_keys", ()) if not (_takes_pooler(model) and _POOLER.search(key))
    )
    in_block = re.compile(rf"(?:^|\.){re.escape(family_of(model).blocks)}\.\d+\.")
    for key in unread:
        if ours or (in_block.search(key) and not _LEFTOVERS.search(key)):
            raise KronpressError(
                f"{source} holds the weight '{key}', which its config.json has no place for; "
                "the files are not of one model: copy or download them again"
            )
    return unread


def note_unread(model: PreTrainedModel, unread: list[str]) -> None:
    """Keep a note of the stored weights that a model does not read."""
    if unread:
        note(
            model,
            f"{len(unread)} stored tensors have no place in {type(model).__name__} and are left out, "
            f"the first being '{unread[0]}'",
        )


def keep_pooler(source: str, model: PreTrainedModel, info: Info, *, options: dict[str, Any]) -> None:
    """Give the encoder below a masked-language-model head the pooler that its file holds.

    Transformers builds that head without one and leaves the stored one out; heads of classification start from it.

    Raises:
        KronpressError: a part of the pooler is missing.
    """
    if not _takes_pooler(model) or not any(_POOLER.search(key) for key in info.get("unexpected_keys", ())):
        return
    with _quiet():
        whole, found = AutoModel.from_pretrained(**options, output_loading_info=True, ignore_mismatched_sizes=True)
    require_complete(source, model, found)
    setattr(model.base_model, "pooler", whole.pooler.to(model.dtype))  # noqa: B010  (typed as a tensor by torch)


def _takes_pooler(model: PreTrainedModel) -> bool:
    return getattr(model.base_model, "pooler", model) is None
