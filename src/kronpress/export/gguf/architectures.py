"""Which model families GGUF has an architecture for, and what its files say of their sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kronpress.errors import KronpressError, shown


@dataclass(frozen=True)
class Sizes:
    """The hyperparameters of a model, as GGUF's keys have them; what an architecture lacks is None."""

    context: int
    blocks: int
    width: int
    feed_forward: int
    heads: int
    epsilon: float
    kv_heads: int | None = None
    head_dim: int | None = None
    rotary_base: float | None = None
    sliding_window: int | None = None
    local_rotary_base: float | None = None
    token_types: int | None = None


@dataclass(frozen=True)
class Architecture:
    """A model family in GGUF.

    Attributes:
        name: in GGUF.
        sizes: of a config.
        allowed: values of config fields that its programs compute with; they know no others.
        pairs_rotary: whether query and key have the two numbers of a rotation side by side, not half a head apart.
        norm_offset: what is added to the weights of norms, which transformers adds when it runs.
        root_mean_square: whether its norms leave the mean where it is.
        causal: whether a token sees only those before; else it is an encoder, whose heads are left out.
    """

    name: str
    sizes: Callable[[Any], Sizes]
    allowed: Mapping[str, tuple[Any, ...]]
    pairs_rotary: bool = False
    norm_offset: float = 0
    root_mean_square: bool = True
    causal: bool = True

    def require(self, config: Any) -> None:
        """Check that programs for this architecture compute what a config says.

        Raises:
            KronpressError: they do not.
        """
        for field, values in self.allowed.items():
            value = getattr(config, field, values[0])
            if value not in values:
                raise _unlike(config, f"{field}: {shown(value)}", ", ".join(map(str, values)))
        for kind, parameters in _rotary(config).items():
            rope = parameters.get("rope_type", "default")
            if rope != "default" or parameters.get("partial_rotary_factor", 1) != 1:
                raise _unlike(
                    config, f"rope_parameters {shown(parameters)}{kind and ' for ' + kind}", "rope_type default"
                )


def _unlike(config: Any, value: str, allowed: str) -> KronpressError:
    return KronpressError(
        f"a GGUF file of {config.model_type} cannot say {value}, only {allowed}, so programs would compute something "
        "else; export with --format dense"
    )


def _rotary(config: Any) -> dict[str, Mapping[str, Any]]:
    """Return the rotary parameters by the kind of attention; most configs have one for all, called ''."""
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = {kind: value for kind, value in parameters.items() if isinstance(value, Mapping)}
    return nested or {"": parameters}


def _llama_sizes(config: Any) -> Sizes:
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window is not None and window < config.max_position_embeddings:
        raise _unlike(config, f"sliding_window: {window}", f"none below {config.max_position_embeddings}")
    return Sizes(
        context=config.max_position_embeddings,
        blocks=config.num_hidden_layers,
        width=config.hidden_size,
        feed_forward=config.intermediate_size,
        heads=config.num_attention_heads,
        epsilon=config.rms_norm_eps,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        rotary_base=_rotary(config)[""]["rope_theta"],
    )


def _gemma3_sizes(config: Any) -> Sizes:
    rotary = _rotary(config)
    if config.query_pre_attn_scalar != config.head_dim:
        raise _unlike(config, f"query_pre_attn_scalar: {config.query_pre_attn_scalar}", f"head_dim, {config.head_dim}")
    _require_global_blocks(config)
    return Sizes(
        context=config.max_position_embeddings,
        blocks=config.num_hidden_layers,
        width=config.hidden_size,
        feed_forward=config.intermediate_size,
        heads=config.num_attention_heads,
        epsilon=config.rms_norm_eps,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        rotary_base=rotary["full_attention"]["rope_theta"],
        sliding_window=config.sliding_window,
        local_rotary_base=rotary["sliding_attention"]["rope_theta"],
    )


def _require_global_blocks(config: Any) -> None:
    """Check that every sixth block is global, as readers of GGUF take it for Gemma 3, whatever blocks were kept.

    Raises:
        KronpressError: it is not so.
    """
    every = {index for index in range(config.num_hidden_layers) if index % 6 == 5}
    found = {index for index, kind in enumerate(config.layer_types) if kind == "full_attention"}
    if found != every:
        raise _unlike(config, f"full attention in the blocks {shown(sorted(found))}", "in every sixth one")


def _gpt2_sizes(config: Any) -> Sizes:
    return Sizes(
        context=config.n_positions,
        blocks=config.n_layer,
        width=config.n_embd,
        feed_forward=config.n_inner or 4 * config.n_embd,
        heads=config.n_head,
        epsilon=config.layer_norm_epsilon,
    )


def _bert_sizes(config: Any) -> Sizes:
    return Sizes(
        context=config.max_position_embeddings,
        blocks=config.num_hidden_layers,
        width=config.hidden_size,
        feed_forward=config.intermediate_size,
        heads=config.num_attention_heads,
        epsilon=config.layer_norm_eps,
        token_types=config.type_vocab_size,
    )


_LLAMA = Architecture("llama", _llama_sizes, {"hidden_act": ("silu",)}, pairs_rotary=True)
_GELU = ("gelu_new", "gelu_pytorch_tanh")

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Architecture("qwen2", _llama_sizes, {"hidden_act": ("silu",)}),
    "qwen3": Architecture("qwen3", _llama_sizes, {"hidden_act": ("silu",), "attention_bias": (False,)}),
    "gemma3_text": Architecture(
        "gemma3",
        _gemma3_sizes,
        {
            "hidden_activation": ("gelu_pytorch_tanh",),
            "attention_bias": (False,),
            "final_logit_softcapping": (None,),
            "attn_logit_softcapping": (None,),
            "use_bidirectional_attention": (False, None),
        },
        norm_offset=1,
    ),
    "gpt2": Architecture(
        "gpt2",
        _gpt2_sizes,
        {"activation_function": _GELU, "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,)},
        root_mean_square=False,
    ),
    "bert": Architecture(
        "bert",
        _bert_sizes,
        {"hidden_act": ("gelu", *_GELU), "is_decoder": (False,)},
        root_mean_square=False,
        causal=False,
    ),
}
"""By the model type of a config."""


def architecture_of(config: Any) -> Architecture:
    """Return the architecture for a config of a base architecture, which it can describe.

    Raises:
        KronpressError: GGUF has none, or it computes something else.
    """
    if config.model_type not in ARCHITECTURES:
        raise KronpressError(
            f"no GGUF files are written of {config.model_type}, only of {', '.join(ARCHITECTURES)}; export with "
            "--format dense and convert that with the tools of llama.cpp"
        )
    architecture = ARCHITECTURES[config.model_type]
    architecture.require(config)
    return architecture
