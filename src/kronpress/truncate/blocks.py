"""Keep some blocks of a model: what remains is a plain model of that depth."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

from kronpress.errors import KronpressError, shown
from kronpress.families import layout

_NUMBER = "layer_idx"  # attribute of modules that know the number of their block, as the key-value cache needs it
_PLAIN = (bool, int, float, str, type(None), tuple)  # what a module computes with beside its tensors


def keep_blocks(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Keep these blocks of a model, numbered anew, and cut the lists of its config that say something of each.

    The model is changed only where its config describes what remains.

    Raises:
        KronpressError: there are no such blocks, or one would compute otherwise at its new place.
    """
    require_blocks(kept, depth=len(layout(model).block_paths))
    _require_same(model, kept)
    cut_blocks(model, kept)


def require_blocks(kept: Sequence[int], *, depth: int) -> None:
    """Check that a model of `depth` blocks has these, in ascending order, and others beside them.

    Raises:
        KronpressError: it is not so.
    """
    wanted = shown(list(kept))
    if not kept or any(block >= following for block, following in pairwise(kept)):
        raise KronpressError(f"blocks {wanted}: name at least one, each once and in ascending order")
    if kept[0] < 0 or kept[-1] >= depth:
        raise KronpressError(f"blocks {wanted}: the model has {depth}, numbered from 0 to {depth - 1}")
    if len(kept) == depth:
        raise KronpressError(f"blocks {wanted}: these are all {depth} of the model; leave some out")


def cut_blocks(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Keep these blocks and number them anew, without a look at what they compute at their new places."""
    plan = layout(model)
    blocks = [model.get_submodule(plan.block_paths[index]) for index in kept]
    for number, block in enumerate(blocks):
        for module in block.modules():
            if hasattr(module, _NUMBER):
                setattr(module, _NUMBER, number)
    model.set_submodule(plan.block_paths[0].rpartition(".")[0], nn.ModuleList(blocks))
    model.config.update(_cut(model.config, kept, depth_key=plan.family.depth_key, depth=len(plan.block_paths)))


def sharing(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model of its own modules and config that shares all tensors with `model`."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def _cut(config: PreTrainedConfig, kept: Sequence[int], *, depth_key: str, depth: int) -> dict[str, Any]:
    """Return the fields of a config that say how many blocks there are, and something of each, for those kept."""
    lists = {
        key: [value[index] for index in kept]
        for key, value in config.to_dict().items()
        if "layer" in key and isinstance(value, list | tuple) and len(value) == depth
    }
    return {**lists, depth_key: len(kept)}


def _require_same(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Check that a model built from the config of the remaining blocks has each as one of all blocks has it.

    Some models build a block by its number: ModernBERT's first one has no norm before its attention, and GPT-2 can
    divide the scores of a block by its number.

    Raises:
        KronpressError: it has others.
    """
    plan = layout(model)
    config = copy.deepcopy(model.config)
    config.update(_cut(config, kept, depth_key=plan.family.depth_key, depth=len(plan.block_paths)))
    _require_cache(model, config)
    before, after = _built(model, model.config), _built(model, config)
    paths = zip([plan.block_paths[block] for block in kept], layout(after).block_paths, kept, strict=True)
    for number, (path, place, block) in enumerate(paths):
        difference = next(_differences(before.get_submodule(path), after.get_submodule(place)), None)
        if difference is not None:
            raise KronpressError(
                f"block {block} of {type(model).__name__} can not be block {number}: {difference}; keep other blocks"
            )


def _built(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """Return a dense model of the class of `model` that is built from a config, without numbers in it."""
    kind: Any = next(kind for kind in type(model).__mro__ if kind.__module__.startswith("transformers."))
    layers_of_ours = {"model_type", "quantization_config"}
    fields = {key: value for key, value in config.to_dict().items() if key not in layers_of_ours}
    with torch.device("meta"):
        built: PreTrainedModel = kind(kind.config_class.from_dict(fields))
    return built


def _require_cache(model: PreTrainedModel, config: PreTrainedConfig) -> None:
    """Check that the remaining blocks can generate with a cache, which needs one with attention.

    Raises:
        KronpressError: they can not.
    """
    if model.can_generate():
        try:
            DynamicCache(config=config).get_seq_length()
        except ValueError:
            kinds = ", ".join(dict.fromkeys(config.layer_types))
            raise KronpressError(
                f"the blocks that would remain of {type(model).__name__} are all {kinds}, and generation needs one "
                "with attention; keep other blocks"
            ) from None


def _differences(block: nn.Module, twin: nn.Module) -> Iterator[str]:
    """Yield what is not the same in a block and one that is built for another place."""
    ours, theirs = dict(block.named_modules()), dict(twin.named_modules())
    for path in sorted(ours.keys() ^ theirs.keys()):
        yield f"there it would have {'no' if path in ours else 'a'} {path}"
    for path in (path for path in ours if path in theirs):
        if type(ours[path]) is not type(theirs[path]):
            yield f"there {path} would be a {type(theirs[path]).__name__}"
        before, after = _numbers(ours[path]), _numbers(theirs[path])
        for name in (name for name in before if name in after and before[name] != after[name]):
            yield f"there {path or 'it'} would have {name}: {after[name]}, and not {before[name]}"


def _numbers(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module that are no tensors, but for the number of its block and what is private."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, _PLAIN) and name not in (_NUMBER, "training") and not name.startswith("_")
    }
