"""Take the rows of trimmed tokens out of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from kronpress.checkpoint import settle_ties
from kronpress.errors import KronpressError
from kronpress.families import family_of, vocabulary_size

_ID = re.compile(r".*_token_ids?")  # keys of a config


def ids_in_configs(model: PreTrainedModel) -> frozenset[int]:
    """Return the ids of tokens that the configurations of a model name: the beginning of a text, padding …"""
    return frozenset(number for config in _configs(model) for value in _named(config).values() for number in value)


def require_dense_tables(model: PreTrainedModel) -> None:
    """Check that the token table and the head are dense.

    Raises:
        KronpressError: one of them has factors or codes.
    """
    for module in _tables(model):
        if not isinstance(module, nn.Embedding | nn.Linear):
            raise KronpressError(
                f"the {type(module).__name__} over the vocabulary has factors or codes, whose shapes fix its rows; "
                "trim the dense model first, and compress the result"
            )


@torch.no_grad()
def keep_rows(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Keep only these rows of the token table and the head, in ascending order; configurations name the new ids.

    Raises:
        KronpressError: a table has factors, or the positions of the model depend on the id of padding, which changes.
    """
    require_dense_tables(model)
    settle_ties(model)
    new, rows = {number: place for place, number in enumerate(kept)}, vocabulary_size(model)
    padding: Any = getattr(model.config, "pad_token_id", None)
    if family_of(model).positions_after_padding and new.get(padding) != padding:
        raise KronpressError(
            f"{type(model).__name__} counts positions from the id of padding, which would go from {padding} to "
            f"{new.get(padding)}; keep the tokens before it"
        )
    chosen = torch.tensor(kept)
    held = {id(value): value for module in _holders(model) for value in module.parameters(recurse=False)}
    for value in held.values():
        if len(value) == rows:
            value.data = value.data[chosen.to(value.device)]  # in the same parameter, which others may share
    _resize(model, new, rows=rows)
    for config in _configs(model):
        for key, numbers in _named(config).items():
            before, after = getattr(config, key), [new[number] for number in numbers]
            setattr(config, key, after if isinstance(before, list) else after[0])


def _tables(model: PreTrainedModel) -> list[nn.Module]:
    return [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module is not None]


def _holders(model: PreTrainedModel) -> Iterator[nn.Module]:
    """Yield the modules that have rows of tokens: tables, and what stands around the head, whose bias it may be."""
    yield from _tables(model)
    head = model.get_output_embeddings()
    yield from (module for module in model.modules() if head is not None and any(c is head for c in module.children()))


def _resize(model: PreTrainedModel, new: Mapping[int, int], *, rows: int) -> None:
    """Let modules and configurations say how many tokens there are."""
    table: Any = model.get_input_embeddings()
    if table.padding_idx is not None:
        table.padding_idx = new[table.padding_idx]
    for holder, key in (
        (table, "num_embeddings"),
        (model.get_output_embeddings(), "out_features"),
        *((part, "vocab_size") for part in (*model.modules(), model.config, model.config.get_text_config())),
    ):
        if getattr(holder, key, None) == rows:
            setattr(holder, key, len(new))


def _configs(model: PreTrainedModel) -> Iterator[Any]:
    yield model.config
    if model.config.get_text_config() is not model.config:
        yield model.config.get_text_config()
    if model.can_generate():
        yield model.generation_config


def _named(config: Any) -> Mapping[str, list[int]]:
    """Return the ids of tokens in a config by their keys."""
    values = {key: value for key, value in vars(config).items() if _ID.fullmatch(key)}
    lists = {key: value if isinstance(value, list) else [value] for key, value in values.items()}
    return {key: value for key, value in lists.items() if value and all(isinstance(number, int) for number in value)}
