"""Layers as values and as modules that compute with factors; each knows its dense twin."""

from kronpress.layers.dense import DenseEmbeddingSpec, DenseLinearSpec, linear, narrowed, scale_of, weight_of
from kronpress.layers.embedding import FactoredEmbedding, FactoredHead, FactoredHeadSpec, FactoredTableSpec
from kronpress.layers.formats import FLOAT32, TensorFormat, TensorSpec
from kronpress.layers.fused import FusedLinear, FusedLinearSpec
from kronpress.layers.grouped_embedding import GroupedEmbedding, GroupedEmbeddingSpec
from kronpress.layers.kronecker import KroneckerFactors, KroneckerLinear, KroneckerLinearSpec
from kronpress.layers.kronecker_embedding import (
    KroneckerEmbedding,
    KroneckerEmbeddingSpec,
    NestedKroneckerEmbedding,
    NestedKroneckerEmbeddingSpec,
)
from kronpress.layers.low_rank import LowRankLinear, LowRankLinearSpec
from kronpress.layers.replacement import require_fit, require_same_place, spec_of
from kronpress.layers.specs import SPECS, LayerSpec, TableSpec, parse_spec, require_reasonable
from kronpress.layers.structured import LinearSpec, StructuredLayer, StructuredSpec, bias_of, structured_layers
from kronpress.layers.tensor_train import (
    TensorTrainEmbedding,
    TensorTrainEmbeddingSpec,
    TensorTrainLinear,
    TensorTrainLinearSpec,
)

__all__ = [
    "FLOAT32",
    "SPECS",
    "DenseEmbeddingSpec",
    "DenseLinearSpec",
    "FactoredEmbedding",
    "FactoredHead",
    "FactoredHeadSpec",
    "FactoredTableSpec",
    "FusedLinear",
    "FusedLinearSpec",
    "GroupedEmbedding",
    "GroupedEmbeddingSpec",
    "KroneckerEmbedding",
    "KroneckerEmbeddingSpec",
    "KroneckerFactors",
    "KroneckerLinear",
    "KroneckerLinearSpec",
    "LayerSpec",
    "LinearSpec",
    "LowRankLinear",
    "LowRankLinearSpec",
    "NestedKroneckerEmbedding",
    "NestedKroneckerEmbeddingSpec",
    "StructuredLayer",
    "StructuredSpec",
    "TableSpec",
    "TensorFormat",
    "TensorSpec",
    "TensorTrainEmbedding",
    "TensorTrainEmbeddingSpec",
    "TensorTrainLinear",
    "TensorTrainLinearSpec",
    "bias_of",
    "linear",
    "narrowed",
    "parse_spec",
    "require_fit",
    "require_reasonable",
    "require_same_place",
    "scale_of",
    "spec_of",
    "structured_layers",
    "weight_of",
]
