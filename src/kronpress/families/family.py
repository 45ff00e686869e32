"""What kronpress knows of a model family: names of its parts, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kronpress.families.signatures import PreTrainedModel
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
        rotary: whether query and key are turned by their positions, which ties each neuron to its place in the head.
        causal: whether its models read from left to right.
        positions_after_padding: whether positions are counted from the id of the padding token, as RoBERTa does.
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
    rotary: bool = False
    causal: bool = True
    positions_after_padding: bool = False
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
