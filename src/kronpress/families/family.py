"""What kronpress knows of a model family: names of its parts, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.registry import Shelf

ATTENTION_ROLES = ("query", "key", "value", "output")
FEED_FORWARD_ROLES = ("gate", "up", "down")


@dataclass(frozen=True)
class Family:
    """Paths and config keys of one architecture; paths are relative to the base model or the block.

    Attributes:
        model_types: `config.model_type` of the models that share this layout.
        blocks: path of the list of Transformer blocks.
        roles: role → path in the block; several roles may share a fused module (GPT-2's `attn.c_attn`).
        embedding: path of the token embedding.
        head: path of the output embedding, from the root of the model with a language-model head.
        depth_key: config key with the number of blocks.
        width_key: config key with the number of hidden neurons of the feed-forward block.
        closing_norm: path of the norm in which a block ends, where it computes norm(x + feed_forward(x)), as BERT
            does; None where it computes x + feed_forward(norm(x)).
        fused: role → the roles that its module computes at once, in equal shares of the output.
    """

    model_types: tuple[str, ...]
    blocks: str
    roles: Mapping[str, str]
    embedding: str
    head: str
    depth_key: str = "num_hidden_layers"
    width_key: str = "intermediate_size"
    closing_norm: str | None = None
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


FAMILIES: Shelf[Family] = Shelf("model type")


def register(family: Family) -> Family:
    """Put a family on the shelf under each of its model types."""
    for model_type in family.model_types:
        FAMILIES.add(model_type, family)
    return family


def family_of(model: PreTrainedModel) -> Family:
    """Return the family of a model.

    Raises:
        KronpressError: the model type is not supported.
    """
    return FAMILIES[str(model.config.model_type).removeprefix("kronpress_")]


@dataclass(frozen=True)
class FeedForward:
    """One feed-forward block: full module paths, with no gate where the family has none."""

    block: int
    up: str
    down: str
    gate: str | None = None

    @property
    def expanding(self) -> tuple[str, ...]:
        """The paths of the matrices that produce the hidden neurons."""
        return (self.up,) if self.gate is None else (self.gate, self.up)


@dataclass(frozen=True)
class Site:
    """A module that can be replaced.

    Attributes:
        path: full path of the module.
        role: what it computes.
        block: index of its block, None outside of the blocks.
        shares: the roles that a fused module computes at once, in equal shares of its output; else empty.
    """

    path: str
    role: str
    block: int | None
    shares: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """The sites of one model."""

    family: Family
    sites: tuple[Site, ...]
    feed_forwards: tuple[FeedForward, ...]
    block_paths: tuple[str, ...]


def is_causal(model: PreTrainedModel) -> bool:
    """Tell whether the model is a decoder with a language-model head."""
    return bool(model.can_generate()) and not model.config.is_encoder_decoder


def base_prefix(model: PreTrainedModel) -> str:
    """Return the path prefix of the base model inside `model`: `model.` in a Llama with a head, else empty."""
    name = model.base_model_prefix
    return f"{name}." if name and hasattr(model, name) else ""


def layout(model: PreTrainedModel) -> Layout:
    """Return the replaceable sites of a model, in the order of the computation.

    Raises:
        KronpressError: the model type is not supported.
    """
    family, prefix = family_of(model), base_prefix(model)
    depth = int(getattr(model.config, family.depth_key))
    block_paths = tuple(f"{prefix}{family.blocks}.{i}" for i in range(depth))
    sites = [Site(prefix + family.embedding, "embedding", None)]
    for i, block in enumerate(block_paths):
        sites += [Site(f"{block}.{path}", role, i, family.fused.get(role, ())) for role, path in family.roles.items()]
    if has_module(model, family.head):
        sites.append(Site(family.head, "head", None))
    feed_forwards = tuple(_feed_forward(family, i, block) for i, block in enumerate(block_paths))
    return Layout(family, tuple(sites), feed_forwards, block_paths)


def _feed_forward(family: Family, index: int, block: str) -> FeedForward:
    paths = {role: f"{block}.{family.roles[role]}" for role in FEED_FORWARD_ROLES if role in family.roles}
    return FeedForward(index, **paths)


def has_module(model: nn.Module, path: str) -> bool:
    """Say whether there is a module at `path`."""
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def replace_module(model: nn.Module, path: str, *, module: nn.Module) -> None:
    """Put `module` where `path` leads.

    Raises:
        KronpressError: nothing is there.
    """
    if not has_module(model, path):
        raise KronpressError(f"the model has no module '{path}'")
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
