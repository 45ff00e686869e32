"""What a GGUF file says of a model before its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from kronpress.export.gguf.architectures import Architecture, Sizes
from kronpress.export.gguf.tensors import GgufTensor
from kronpress.export.gguf.types import GgufType
from kronpress.export.gguf.vocabulary import Vocabulary

_QUANTIZATION_VERSION = 2  # of the block layouts
_AS_GIVEN = np.dtype(np.float32)  # for bytes the writer would look the type up, and it knows not all of them


def add_sizes(writer: Any, sizes: Sizes, architecture: Architecture, *, vocabulary: int) -> None:
    """Add the hyperparameters of a model to the `GGUFWriter` of a file."""
    writer.add_vocab_size(vocabulary)
    writer.add_context_length(sizes.context)
    writer.add_block_count(sizes.blocks)
    writer.add_embedding_length(sizes.width)
    writer.add_feed_forward_length(sizes.feed_forward)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.kv_heads or sizes.heads)
    (writer.add_layer_norm_rms_eps if architecture.root_mean_square else writer.add_layer_norm_eps)(sizes.epsilon)
    if not architecture.causal:
        writer.add_causal_attention(False)
    if sizes.token_types is not None:
        writer.add_token_type_count(sizes.token_types)
    for add, value in (
        (writer.add_key_length, sizes.head_dim),
        (writer.add_value_length, sizes.head_dim),
        (writer.add_rope_dimension_count, sizes.head_dim),
        (writer.add_rope_freq_base, sizes.rotary_base),
        (writer.add_sliding_window, sizes.sliding_window),
        (writer.add_rope_freq_base_swa, sizes.local_rotary_base),
    ):
        if value is not None:
            add(value)


def add_vocabulary(writer: Any, vocabulary: Vocabulary | None) -> None:
    """Add a tokenizer, or say that there is none."""
    if vocabulary is None:
        writer.add_tokenizer_model("no_vocab")
        return
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([int(kind) for kind in vocabulary.kinds])
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    for name, token in vocabulary.special.items():
        getattr(writer, f"add_{name}_token_id")(token)
    for name, added in vocabulary.adds.items():
        writer.add_bool(f"tokenizer.ggml.add_{name}_token", added)
    writer.add_add_space_prefix(vocabulary.space_prefix)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)


def add_types(writer: Any, tensors: Sequence[GgufTensor]) -> None:
    """Name the type that holds most of the numbers, and announce the tensors."""
    counts: Counter[GgufType] = Counter()
    for tensor in tensors:
        counts[tensor.kind] += prod(tensor.shape)
        writer.add_tensor_info(tensor.name, tensor.shape, _AS_GIVEN, tensor.bytes, raw_dtype=tensor.kind.number)
    ((kind, _),) = counts.most_common(1)
    writer.add_file_type(kind.file_number)
    writer.add_quantization_version(_QUANTIZATION_VERSION)
