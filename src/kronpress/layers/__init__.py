"""Modules that compute with factors; each knows its dense twin."""

from kronpress.layers.dense import linear, narrowed, weight_of
from kronpress.layers.kronecker import KroneckerEmbedding, KroneckerLinear
from kronpress.layers.low_rank import LowRankLinear
from kronpress.layers.structured import LAYERS, StructuredLayer, bias_of, from_spec

__all__ = [
    "LAYERS",
    "KroneckerEmbedding",
    "KroneckerLinear",
    "LowRankLinear",
    "StructuredLayer",
    "bias_of",
    "from_spec",
    "linear",
    "narrowed",
    "weight_of",
]
