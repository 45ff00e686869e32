"""The class of a model, and what transformers knows by it."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, modeling_utils


def become(model: PreTrainedModel, kind: type[PreTrainedModel]) -> None:
    """Make a model one of another class, which gives its hidden states and attentions as before.

    transformers looks up by the class what can be noted on the way, and is told so when a model is built.
    """
    model.__class__ = kind
    known: Any = modeling_utils
    known._CAN_RECORD_REGISTRY[model] = model._can_record_outputs
