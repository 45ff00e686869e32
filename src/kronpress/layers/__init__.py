"""Modules that compute with factors; each knows its dense twin."""

from kronpress.layers.dense import linear, narrowed, weight_of
from kronpress.layers.embedding import FactoredEmbedding, FactoredHead
from kronpress.layers.fused import FusedLinear
from kronpress.layers.grouped_embedding import GroupedEmbedding
from kronpress.layers.kronecker import KroneckerFactors, KroneckerLinear
from kronpress.layers.kronecker_embedding import KroneckerEmbedding, NestedKroneckerEmbedding
from kronpress.layers.low_rank import LowRankLinear
from kronpress.layers.replacement import require_fit
from kronpress.layers.specs import SPECS, LayerSpec, parse_spec
from kronpress.layers.structured import LAYERS, StructuredLayer, bias_of, from_spec
from kronpress.layers.tensor_train import TensorTrainEmbedding, TensorTrainLinear

__all__ = [
    "LAYERS",
    "SPECS",
    "FactoredEmbedding",
    "FactoredHead",
    "FusedLinear",
    "GroupedEmbedding",
    "KroneckerEmbedding",
    "KroneckerFactors",
    "KroneckerLinear",
    "LayerSpec",
    "LowRankLinear",
    "NestedKroneckerEmbedding",
    "StructuredLayer",
    "TensorTrainEmbedding",
    "TensorTrainLinear",
    "bias_of",
    "from_spec",
    "linear",
    "narrowed",
    "parse_spec",
    "require_fit",
    "weight_of",
]
