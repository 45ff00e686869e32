"""Put the head of a task on a model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from kronpress.checkpoint.config import PREFIX
from kronpress.data import require_known
from kronpress.errors import KronpressError
from kronpress.families import family_of
from kronpress.tasks.sentences import ClassificationTask
from kronpress.tasks.task import Task

_AUTO: dict[str, Any] = {
    "classification": AutoModelForSequenceClassification,
    "regression": AutoModelForSequenceClassification,
    "spans": AutoModelForQuestionAnswering,
}
_PROBLEMS = {"classification": "single_label_classification", "regression": "regression", "spans": None}


def with_head(
    model: PreTrainedModel, task: Task[Any, Any], tokenizer: PreTrainedTokenizerBase, *, seed: int = 0
) -> PreTrainedModel:
    """Return a copy of a model with the head of a task in place of its own, which `seed` draws.

    A model that has such a head already keeps it, see `is_headed`. The configuration names the task's classes. A
    decoder's head reads the last token that is not padding, which `config.pad_token_id` tells.

    Args:
        model: any supported model; structured layers stay what they are, and an output head that the task has no use
            for is left out.
        task: says which head, and how many outputs.
        tokenizer: that of the model; it is given a padding token where it has none.
        seed: of the new head.

    Raises:
        KronpressError: transformers has no such head for the model, or the tokenizer's padding is not the model's.
    """
    mine: Any = copy.deepcopy(model)
    own_type = str(model.config.model_type).removeprefix(PREFIX)
    config = _plain(mine.config, own_type)
    pad(tokenizer)
    require_known(torch.tensor([tokenizer.pad_token_id]), tokenizer, model=model)
    _require_positions(model, tokenizer)
    mapping = _AUTO[task.head]._model_mapping
    if type(config) not in mapping:
        raise KronpressError(
            f"transformers has no {task.head} head for {own_type} models, which the task '{task.name}' needs"
        )
    if is_headed(model, task):
        _describe(mine.config, task, tokenizer)
        kept: PreTrainedModel = mine
        return kept
    _describe(config, task, tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        headed: Any = mapping[type(config)](config)
    _move_in(headed, mine.base_model)
    module: nn.Module = headed
    module.to(device=model.device, dtype=model.dtype).eval()
    found: PreTrainedModel = headed
    return found


def _require_positions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that padding does not move the positions of a model that counts them from its padding token."""
    own, given = model.config.pad_token_id, tokenizer.pad_token_id
    if family_of(model).positions_after_padding and own != given:
        raise KronpressError(
            f"a {type(model).__name__} counts positions from its padding token {own}, and its tokenizer pads with "
            f"{given}, which would move them all; give it the tokenizer that it was trained with"
        )


def is_headed(model: PreTrainedModel, task: Task[Any, Any]) -> bool:
    """Say whether a model has the head of a task, with the same outputs in the same order.

    Classes are told by their names in `id2label`, whatever their case. Where these are nothing but numbers (LABEL_0,
    LABEL_1, …) the head is taken for the task's, for nothing speaks against it.
    """
    config, spans = model.config, task.head == "spans"
    if not type(model).__name__.endswith("ForQuestionAnswering" if spans else "ForSequenceClassification"):
        return False
    problem = config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")
    if config.num_labels != task.outputs or (not spans and problem != _PROBLEMS[task.head]):
        return False
    return not isinstance(task, ClassificationTask) or _has_classes(config, task.labels)


def _has_classes(config: Any, labels: Sequence[str]) -> bool:
    names = [str(config.id2label.get(index)).lower() for index in range(len(labels))]
    numbers = [str(index) for index in range(len(labels))]
    return names in ([label.lower() for label in labels], [f"label_{number}" for number in numbers], numbers)


def _describe(config: Any, task: Task[Any, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """Write into a configuration what the outputs of a task's head are, and which token is padding."""
    unnamed = [f"LABEL_{index}" for index in range(task.outputs)]  # as transformers does
    labels = task.labels if isinstance(task, ClassificationTask) else unnamed
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = _PROBLEMS[task.head]
    config.pad_token_id = tokenizer.pad_token_id


def take_head(student: PreTrainedModel, teacher: PreTrainedModel) -> bool:
    """Copy head and pooler of a fine-tuned teacher, as KroneckerBERT's second stage begins (Tahaei et al., 2022).

    Returns:
        Whether they fit; if not, nothing is changed.
    """
    parts = [_parts_above(model) for model in (student, teacher)]
    if _shapes(parts[0]) != _shapes(parts[1]):
        return False
    for name, module in parts[0].items():
        module.load_state_dict(parts[1][name].state_dict())
    return True


def _parts_above(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return what a model computes with after its last block."""
    parts = {name: module for name, module in model.named_children() if name != model.base_model_prefix}
    pooler = getattr(model.base_model, "pooler", None)
    return parts if pooler is None else parts | {"pooler": pooler}


def _shapes(parts: dict[str, nn.Module]) -> dict[str, dict[str, torch.Size]]:
    return {name: {key: value.shape for key, value in part.state_dict().items()} for name, part in parts.items()}


def pad(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer without padding its end of text for it."""
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise KronpressError("the tokenizer has neither a padding token nor an end of text; give it a pad_token")
        tokenizer.pad_token = tokenizer.eos_token


def _plain(config: Any, model_type: str) -> Any:
    """Return the configuration as one of the base architecture, without a word of structured layers."""
    plain = type(config)
    while str(plain.model_type) != model_type:
        plain = plain.__mro__[1]
    fields = {key: value for key, value in config.to_dict().items() if key not in ("quantization_config", "model_type")}
    found = plain.from_dict(fields)
    found._attn_implementation = config._attn_implementation
    return found


def _move_in(headed: PreTrainedModel, core: PreTrainedModel) -> None:
    """Let `headed` compute with `core`, which gets the parts that it lacks, such as a pooler, and loses the others."""
    expected: nn.Module = headed.base_model
    for name, child in expected.named_children():
        if getattr(core, name, None) is None:
            setattr(core, name, child)
    for name, _ in list(core.named_children()):
        if getattr(expected, name, None) is None:
            setattr(core, name, None)
    for module in core.modules():
        if hasattr(module, "config"):  # which attention is used, for one, every layer reads in it
            setattr(module, "config", headed.config)  # noqa: B010  (typed as a tensor or module by torch)
    setattr(headed, headed.base_model_prefix, core)
