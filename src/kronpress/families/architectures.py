"""The modules of each model type and their shapes, as data; `dense_shapes` writes them out for one config.

A size stands here by its name: `hidden`, `width` (of the feed-forward block), `queries`, `keys`, `head` (of one head),
`fused` (query, key and value), `vocabulary`, `positions`, `types` (of token types), `frequencies` (of rotary positions)
and `one`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from kronpress.families.signatures import PreTrainedConfig
from kronpress.layers import DenseLinearSpec, TensorFormat
from kronpress.registry import Shelf

_INT64, _FLOAT32 = TensorFormat.of(torch.int64), TensorFormat.of(torch.float32)


@dataclass(frozen=True)
class Linear:
    """A linear layer, out × in.

    Attributes:
        rows: the name of a size.
        columns: the name of a size.
        bias: whether it has one, or the config key that says so.
    """

    rows: str
    columns: str
    bias: bool | str = True

    def spec(self, sizes: Mapping[str, int], config: PreTrainedConfig) -> DenseLinearSpec:
        """Return the form of the layer in one model."""
        bias = bool(getattr(config, self.bias, False)) if isinstance(self.bias, str) else self.bias
        return DenseLinearSpec(in_features=sizes[self.columns], out_features=sizes[self.rows], bias=bias)


@dataclass(frozen=True)
class Architecture:
    """The modules of one model type; paths are relative to the base model, those of `head` are not.

    Attributes:
        prefix: path of the base model in one with a head.
        block: path in a block → its linear layer.
        block_vectors: name in a block → the size of a norm's weight or bias.
        vectors: the same outside of the blocks.
        tables: path → the sizes of a learned table that is not the token table, such as that of the positions.
        head: path → what stands before the output head.
        head_vectors: name → the size of a vector there.
        head_bias: whether the output head has a bias.
        shared_bias: name of the bias of another module that is the head's where the two are tied.
        pooler: path → the linear layer that the base model alone has.
        buffers: name → the names of its sizes, and its number format.
    """

    prefix: str
    block: Mapping[str, Linear]
    block_vectors: Mapping[str, str]
    vectors: Mapping[str, str]
    tables: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    head: Mapping[str, Linear] = field(default_factory=dict)
    head_vectors: Mapping[str, str] = field(default_factory=dict)
    head_bias: bool = False
    shared_bias: str | None = None
    pooler: Mapping[str, Linear] = field(default_factory=dict)
    buffers: Mapping[str, tuple[tuple[str, ...], TensorFormat]] = field(default_factory=dict)


ARCHITECTURES: Shelf[Architecture] = Shelf("model type")


def _norms(*paths: str, size: str = "hidden", bias: bool = True) -> dict[str, str]:
    """Return the vectors of norms at these paths."""
    return {f"{path}.{part}": size for path in paths for part in ("weight", "bias")[: 1 + bias]}


_POSITIONS = (("one", "positions"), _INT64)
_FREQUENCIES = (("frequencies",), _FLOAT32)

ARCHITECTURES.add(
    "gpt2",
    Architecture(
        prefix="transformer",
        block={
            "attn.c_attn": Linear("fused", "hidden"),
            "attn.c_proj": Linear("hidden", "hidden"),
            "mlp.c_fc": Linear("width", "hidden"),
            "mlp.c_proj": Linear("hidden", "width"),
        },
        block_vectors=_norms("ln_1", "ln_2"),
        vectors=_norms("ln_f"),
        tables={"wpe": ("positions", "hidden")},
    ),
)


def _llama(
    *, attention: bool | str = False, output: bool | str = False, feed_forward: bool | str = False, **more: str
) -> Architecture:
    """Return the shapes of a gated decoder with biases where the arguments say so, and more vectors in each block."""
    return Architecture(
        prefix="model",
        block={
            "self_attn.q_proj": Linear("queries", "hidden", attention),
            "self_attn.k_proj": Linear("keys", "hidden", attention),
            "self_attn.v_proj": Linear("keys", "hidden", attention),
            "self_attn.o_proj": Linear("hidden", "queries", output),
            "mlp.gate_proj": Linear("width", "hidden", feed_forward),
            "mlp.up_proj": Linear("width", "hidden", feed_forward),
            "mlp.down_proj": Linear("hidden", "width", feed_forward),
        },
        block_vectors=_norms("input_layernorm", "post_attention_layernorm", bias=False) | more,
        vectors=_norms("norm", bias=False),
        buffers={"rotary_emb.inv_freq": _FREQUENCIES, "rotary_emb.original_inv_freq": _FREQUENCIES},
    )


_QUERY_KEY_NORMS = _norms("self_attn.q_norm", "self_attn.k_norm", size="head", bias=False)
for _model_type in ("llama", "smollm3"):
    ARCHITECTURES.add(_model_type, _llama(attention="attention_bias", output="attention_bias", feed_forward="mlp_bias"))
ARCHITECTURES.add("mistral", _llama())
ARCHITECTURES.add("qwen2", _llama(attention=True))
ARCHITECTURES.add("qwen3", _llama(attention="attention_bias", output="attention_bias", **_QUERY_KEY_NORMS))


def _bert(prefix: str, *, head: str, transform: str, norm: str) -> Architecture:
    """Return the shapes of BERT, whose head has other names in RoBERTa."""
    hidden = ("query", "key", "value")
    return Architecture(
        prefix=prefix,
        block={f"attention.self.{role}": Linear("hidden", "hidden") for role in hidden}
        | {
            "attention.output.dense": Linear("hidden", "hidden"),
            "intermediate.dense": Linear("width", "hidden"),
            "output.dense": Linear("hidden", "width"),
        },
        block_vectors=_norms("attention.output.LayerNorm", "output.LayerNorm"),
        vectors=_norms("embeddings.LayerNorm"),
        tables={
            "embeddings.position_embeddings": ("positions", "hidden"),
            "embeddings.token_type_embeddings": ("types", "hidden"),
        },
        head={f"{head}.{transform}": Linear("hidden", "hidden")},
        head_vectors=_norms(f"{head}.{norm}"),
        head_bias=True,
        shared_bias=f"{head}.bias",
        pooler={"pooler.dense": Linear("hidden", "hidden")},
        buffers={"embeddings.position_ids": _POSITIONS, "embeddings.token_type_ids": _POSITIONS},
    )


ARCHITECTURES.add(
    "bert",
    _bert("bert", head="cls.predictions", transform="transform.dense", norm="transform.LayerNorm"),
)
ARCHITECTURES.add("roberta", _bert("roberta", head="lm_head", transform="dense", norm="layer_norm"))
ARCHITECTURES.add(
    "distilbert",
    Architecture(
        prefix="distilbert",
        block={f"attention.{name}_lin": Linear("hidden", "hidden") for name in ("q", "k", "v", "out")}
        | {"ffn.lin1": Linear("width", "hidden"), "ffn.lin2": Linear("hidden", "width")},
        block_vectors=_norms("sa_layer_norm", "output_layer_norm"),
        vectors=_norms("embeddings.LayerNorm"),
        tables={"embeddings.position_embeddings": ("positions", "hidden")},
        head={"vocab_transform": Linear("hidden", "hidden")},
        head_vectors=_norms("vocab_layer_norm"),
        head_bias=True,
        buffers={"embeddings.position_ids": _POSITIONS},
    ),
)
