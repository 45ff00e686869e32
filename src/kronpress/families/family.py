"""What kronpress knows of a model family: names of its parts, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kronpress.errors import KronpressError, shown
from kronpress.families.fusion import Fusion
from kronpress.families.signatures import PreTrainedConfig, PreTrainedModel
from kronpress.registry import Shelf

ATTENTION_ROLES = ("query", "key", "value", "output")
FEED_FORWARD_ROLES = ("gate", "up", "down")


@dataclass(frozen=True)
class Family:
    """Paths and config keys of one architecture; paths are relative to the base model or the block.

    Attributes:
        model_types: `config.model_type` of the models that share this layout.
        blocks: path of the list of Transformer blocks.
        roles: role → path in the block; a module that computes several roles is named once (see `fused`). A family may
            name the roles of its feed-forward blocks alone.
        embedding: path of the token embedding.
        head: path of the output embedding, from the root of the model with a language-model head.
        depth_key: config key with the number of blocks.
        width_key: config key with the number of hidden neurons of the feed-forward block.
        fixed_width: what the config must say beside, so that the number of hidden neurons is taken as it stands there.
        closing_norm: path of the norm in which a block ends, where it computes norm(x + feed_forward(x)), as BERT
            does; None where it computes x + feed_forward(norm(x)).
        branch_norm: path of the norm through which the feed-forward's output goes before it is added, where the block
            computes x + norm(feed_forward(…)), as Gemma and OLMo 2 do: it takes the size of that output away.
        attention_sum: path of the norm over the sum of the block's input and what its attention adds; None where the
            feed-forward block reads the block's input too, and the sum of all three leaves the block.
        attention_norm: as `branch_norm`, for the attention.
        query_norm: path of a norm over each head's queries, in the models that have one; keys have one then too.
        rotary: whether query and key are turned by their positions, which ties each neuron to its place in the head.
        causal: whether its models read from left to right.
        positions_after_padding: whether positions are counted from the id of the padding token, as RoBERTa does.
        begins_with: "bos" where the model has read no text that does not begin with that token, and is much worse on
            windows without it (Gemma 3 270M has a perplexity of 88 in place of 32).
        fused: role → the roles that its module computes at once, in the order of its rows; of a gate and an up matrix
            the gate, which is activated, is named as such wherever it stands.
        interleaved: roles of fused modules whose rows alternate head by head, as those of GPT-NeoX do.
        only: config key → the only value for which the paths above hold.
        beside: role → path of what is neither in a block nor the token table nor the head, where a model has it:
            the tables of positions and token types, and BERT's pooler.
    """

    model_types: tuple[str, ...]
    blocks: str
    roles: Mapping[str, str]
    embedding: str
    head: str
    depth_key: str = "num_hidden_layers"
    width_key: str = "intermediate_size"
    fixed_width: Mapping[str, object] = field(default_factory=dict)
    closing_norm: str | None = None
    branch_norm: str | None = None
    attention_sum: str | None = None
    attention_norm: str | None = None
    query_norm: str | None = None
    rotary: bool = False
    causal: bool = True
    positions_after_padding: bool = False
    begins_with: Literal["bos"] | None = None
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    interleaved: frozenset[str] = frozenset()
    only: Mapping[str, object] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_attention(self) -> bool:
        """Whether the roles of the attention are named too, not those of the feed-forward block alone."""
        return "output" in self.roles

    def set_width(self, config: PreTrainedConfig, width: int) -> None:
        """Let a config say that every feed-forward block has `width` hidden neurons."""
        for key, value in {self.width_key: width, **self.fixed_width}.items():
            setattr(config, key, value)

    def holder(self, role: str) -> str | None:
        """Return the role of the module that computes `role`, which is another one where that is fused, or None."""
        if role in self.roles:
            return role
        return next((name for name, roles in self.fused.items() if role in roles), None)

    def fusion(self, role: str, config: PreTrainedConfig) -> Fusion | None:
        """Return how the module named `role` is shared among the roles it computes, None where it has but one."""
        if role not in self.fused:
            return None
        roles = self.fused[role]
        heads, key_heads = heads_of(config)
        rows = {"query": heads, "key": key_heads, "value": key_heads}
        sizes = tuple(rows.get(name, 1) for name in roles)
        if role in self.interleaved:  # a run is one head
            return Fusion(roles, tuple(size // heads for size in sizes), runs=heads)
        return Fusion(roles, sizes)


def heads_of(config: PreTrainedConfig) -> tuple[int, int]:
    """Return how many heads the queries have, and the keys, which several of those may share."""
    heads = int(config.num_attention_heads)
    return heads, int(getattr(config, "num_key_value_heads", None) or heads)


def set_heads(config: PreTrainedConfig, *, heads: int, groups: int) -> None:
    """Let a config that states the size of a head say how many heads there are, and how many groups share a key.

    Raises:
        KronpressError: the config does not state that size, or transformers allows no such model.
    """
    if not hasattr(config, "head_dim"):
        raise KronpressError(
            f"{config.model_type} models have no size of a head in their configuration, which is that of all heads "
            "divided by their number: fewer heads would be wider ones"
        )
    size = head_size_of(config)
    changes = {"num_attention_heads": heads, "num_key_value_heads": groups, "head_dim": size}
    try:
        type(config).from_dict({**config.to_dict(), **changes})
    except Exception as error:  # what huggingface_hub and transformers raise differs between models
        reason = " ".join(str(error).split())
        raise KronpressError(f"{config.model_type} models cannot have {heads} heads: {reason}") from error
    for key, value in changes.items():
        setattr(config, key, value)


def head_size_of(config: PreTrainedConfig) -> int:
    """Return how many numbers each head's query has, and its key and value."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


FAMILIES: Shelf[Family] = Shelf("model type")


def register(family: Family) -> Family:
    """Put a family on the shelf under each of its model types."""
    for model_type in family.model_types:
        FAMILIES.add(model_type, family)
    return family


def family_of(model: PreTrainedModel) -> Family:
    """Return the family of a model.

    Raises:
        KronpressError: the model type is not supported, or not with such a configuration.
    """
    model_type = str(model.config.model_type).removeprefix("kronpress_")
    family = FAMILIES[model_type]
    for key, value in family.only.items():
        if getattr(model.config, key) != value:
            raise KronpressError(
                f"{type(model).__name__} has {key}: {shown(getattr(model.config, key))}, and {model_type} models are "
                f"supported with {key}: {shown(value)} alone; choose another model"
            )
    return family
