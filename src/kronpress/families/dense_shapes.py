"""The shapes of all tensors of one model, read from its config alone: nothing is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kronpress.errors import KronpressError, listed
from kronpress.families.architectures import ARCHITECTURES, Architecture, Linear
from kronpress.families.family import FAMILIES, Family
from kronpress.families.signatures import PreTrainedConfig
from kronpress.layers import DenseEmbeddingSpec, DenseLinearSpec, LayerSpec, TensorSpec


@dataclass(frozen=True)
class DenseShapes:
    """What one dense model consists of.

    Attributes:
        prefix: path of the base model in one with a head.
        layers: path → the form of each linear layer, of each table and of the output head.
        vectors: name → the other stored tensors, those of norms.
        buffers: name → what is not stored and made anew with each model.
        blocks: the paths of the blocks.
        embedding: path of the token table.
        head: path of the output head, which a base model lacks.
        shared_bias: name of a bias that is the head's own where that has one and is tied; None where there is none.
    """

    prefix: str
    layers: Mapping[str, LayerSpec]
    vectors: Mapping[str, TensorSpec]
    buffers: Mapping[str, TensorSpec]
    blocks: tuple[str, ...]
    embedding: str
    head: str
    shared_bias: str | None


def dense_shapes(
    config: PreTrainedConfig, *, blocks: tuple[int, ...] | None = None, widths: int | tuple[int, ...] | None = None
) -> DenseShapes:
    """Return the shapes of the model of a config: with the language head of its family, or of the base model alone.

    Args:
        config: that of a model; `architectures` may name the base model.
        blocks: the numbers of the blocks that are kept, by default all.
        widths: hidden neurons of the feed-forward blocks, for all of them or for each that is kept.

    Raises:
        KronpressError: there are no shapes for the model type or its architecture, or no such blocks.
    """
    model_type = str(config.model_type).removeprefix("kronpress_")
    family = FAMILIES[model_type]
    if model_type not in ARCHITECTURES:
        raise KronpressError(
            f"the sizes of a {model_type} model are not known from its config alone, only those of "
            f"{', '.join(ARCHITECTURES)}; build it on the meta device and measure that"
        )
    return _Writer(family, ARCHITECTURES[model_type], config).written(_widths(family, config, blocks, widths))


def _widths(
    family: Family, config: PreTrainedConfig, blocks: tuple[int, ...] | None, widths: int | tuple[int, ...] | None
) -> list[int]:
    """Return the hidden neurons of each block that is kept."""
    depth = int(getattr(config, family.depth_key))
    kept = tuple(range(depth)) if blocks is None else blocks
    if any(block >= depth for block in kept):
        raise KronpressError(f"blocks are {listed(map(str, kept))}; the model has {depth}, numbered from 0")
    if not isinstance(widths, tuple):
        dense = getattr(config, family.width_key, None) or 4 * config.hidden_size  # what GPT-2 takes by default
        return [int(dense if widths is None else widths)] * len(kept)
    if len(widths) != len(kept):
        raise KronpressError(f"there are {len(widths)} widths for {len(kept)} blocks; give one, or one for each")
    return list(widths)


@dataclass(frozen=True)
class _Writer:
    """Writes the table of a model type out for one config."""

    family: Family
    architecture: Architecture
    config: PreTrainedConfig

    def written(self, widths: list[int]) -> DenseShapes:
        base, sizes = self._is_base(), self._sizes()
        prefix = f"{self.architecture.prefix}."
        blocks = tuple(f"{prefix}{self.family.blocks}.{i}" for i in range(len(widths)))
        embedding, head = prefix + self.family.embedding, self.family.head
        layers: dict[str, LayerSpec] = {
            embedding: DenseEmbeddingSpec(num_embeddings=sizes["vocabulary"], embedding_dim=sizes["hidden"])
        }
        for block, width in zip(blocks, widths, strict=True):
            layers |= self._linear(self.architecture.block, sizes | {"width": width}, prefix=f"{block}.")
        for path, (rows, columns) in self.architecture.tables.items():
            table = DenseEmbeddingSpec(num_embeddings=sizes[rows], embedding_dim=sizes[columns])
            layers[prefix + path] = table
        if base:
            layers |= self._linear(self.architecture.pooler, sizes, prefix=prefix)
        else:
            output = Linear("vocabulary", "hidden", self.architecture.head_bias)
            layers |= self._linear({**self.architecture.head, head: output}, sizes, prefix="")
        vectors, buffers = dict(self._vectors(sizes, blocks, base=base)), dict(self._buffers(sizes))
        shared = None if base else self.architecture.shared_bias
        return DenseShapes(prefix, layers, vectors, buffers, blocks, embedding, head, shared)

    def _is_base(self) -> bool:
        """Say whether the config is that of a base model; without a word of it, it is that of one with a head."""
        architecture = next(iter(self.config.architectures or ()), "ForCausalLM").removeprefix("Kronpress")
        if architecture.endswith(("ForCausalLM", "ForMaskedLM", "LMHeadModel")):
            return False
        if architecture.endswith("Model"):
            return True
        raise KronpressError(
            f"the sizes of a {architecture[:80]} are not known from its config alone, only those of the base model and "
            "of the one with a language head; build it on the meta device and measure that"
        )

    def _sizes(self) -> dict[str, int]:
        config = self.config
        heads, hidden = config.num_attention_heads, config.hidden_size
        head = getattr(config, "head_dim", None) or hidden // heads
        return {
            "vocabulary": config.vocab_size,
            "hidden": hidden,
            "fused": 3 * hidden,
            "head": head,
            "frequencies": len(range(0, head, 2)),
            "queries": heads * head,
            "keys": (getattr(config, "num_key_value_heads", None) or heads) * head,
            "positions": getattr(config, "max_position_embeddings", 0),
            "types": getattr(config, "type_vocab_size", 0),
            "one": 1,
        }

    def _linear(
        self, table: Mapping[str, Linear], sizes: Mapping[str, int], *, prefix: str
    ) -> dict[str, DenseLinearSpec]:
        return {prefix + path: linear.spec(sizes, self.config) for path, linear in table.items()}

    def _vectors(
        self, sizes: Mapping[str, int], blocks: tuple[str, ...], *, base: bool
    ) -> Iterator[tuple[str, TensorSpec]]:
        own, prefix = self.architecture, f"{self.architecture.prefix}."
        vectors = {prefix + name: size for name, size in own.vectors.items()}
        vectors |= {f"{block}.{name}": size for block in blocks for name, size in own.block_vectors.items()}
        vectors |= {} if base else own.head_vectors
        for name, size in vectors.items():
            yield name, TensorSpec((sizes[size],))

    def _buffers(self, sizes: Mapping[str, int]) -> Iterator[tuple[str, TensorSpec]]:
        for name, (shape, number_format) in self.architecture.buffers.items():
            yield f"{self.architecture.prefix}.{name}", TensorSpec(tuple(sizes[size] for size in shape), number_format)
