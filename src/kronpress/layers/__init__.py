"""Layers as values and as modules that compute with factors; each knows its dense twin."""

from kronpress.layers.dense import (
    DenseEmbeddingSpec,
    DenseLinearSpec,
    is_transposed,
    linear,
    narrowed,
    scale_of,
    weight_of,
)
from kronpress.layers.embedding import FactoredEmbedding, FactoredHead, FactoredHeadSpec, FactoredTableSpec
from kronpress.layers.formats import FLOAT32, TensorFormat, TensorSpec
from kronpress.layers.fused import FusedLinear, FusedLinearSpec
from kronpress.layers.grid import GGUF_GRIDS, LEVELS, Grid, Groups, Scales
from kronpress.layers.grouped_embedding import GroupedEmbedding, GroupedEmbeddingSpec
from kronpress.layers.kronecker import KroneckerFactors, KroneckerLinear, KroneckerLinearSpec
from kronpress.layers.kronecker_embedding import (
    KroneckerEmbedding,
    KroneckerEmbeddingSpec,
    NestedKroneckerEmbedding,
    NestedKroneckerEmbeddingSpec,
)
from kronpress.layers.low_rank import LowRankLinear, LowRankLinearSpec
from kronpress.layers.low_rank_sparse import LowRankSparseLinear, LowRankSparseLinearSpec
from kronpress.layers.matrices import (
    Matrix,
    grids_of,
    is_learning,
    matrices_of,
    pack,
    packed,
    quantized_tensors,
    rounded_inputs,
    unrounded,
)
from kronpress.layers.monarch import MonarchLinear, MonarchLinearSpec
from kronpress.layers.quantized import (
    QuantizedEmbedding,
    QuantizedEmbeddingSpec,
    QuantizedLinear,
    QuantizedLinearSpec,
)
from kronpress.layers.quantized_tensor import Coded, Learned, QuantizedTensor, Rule, spanning
from kronpress.layers.replacement import require_fit, require_same_place, spec_of
from kronpress.layers.rounded_inputs import InputGrid, RoundedInputs
from kronpress.layers.specs import SPECS, LayerSpec, TableSpec, parse_spec, require_reasonable
from kronpress.layers.structured import (
    LinearSpec,
    StructuredLayer,
    StructuredSpec,
    bias_of,
    stored_numbers,
    structured_layers,
)
from kronpress.layers.submatrix import SubmatrixLinear, SubmatrixLinearSpec
from kronpress.layers.tensor_train import (
    TensorTrainEmbedding,
    TensorTrainEmbeddingSpec,
    TensorTrainLinear,
    TensorTrainLinearSpec,
)

__all__ = [
    "FLOAT32",
    "GGUF_GRIDS",
    "LEVELS",
    "SPECS",
    "Coded",
    "DenseEmbeddingSpec",
    "DenseLinearSpec",
    "FactoredEmbedding",
    "FactoredHead",
    "FactoredHeadSpec",
    "FactoredTableSpec",
    "FusedLinear",
    "FusedLinearSpec",
    "Grid",
    "GroupedEmbedding",
    "GroupedEmbeddingSpec",
    "Groups",
    "InputGrid",
    "KroneckerEmbedding",
    "KroneckerEmbeddingSpec",
    "KroneckerFactors",
    "KroneckerLinear",
    "KroneckerLinearSpec",
    "LayerSpec",
    "Learned",
    "LinearSpec",
    "LowRankLinear",
    "LowRankLinearSpec",
    "LowRankSparseLinear",
    "LowRankSparseLinearSpec",
    "Matrix",
    "MonarchLinear",
    "MonarchLinearSpec",
    "NestedKroneckerEmbedding",
    "NestedKroneckerEmbeddingSpec",
    "QuantizedEmbedding",
    "QuantizedEmbeddingSpec",
    "QuantizedLinear",
    "QuantizedLinearSpec",
    "QuantizedTensor",
    "RoundedInputs",
    "Rule",
    "Scales",
    "StructuredLayer",
    "StructuredSpec",
    "SubmatrixLinear",
    "SubmatrixLinearSpec",
    "TableSpec",
    "TensorFormat",
    "TensorSpec",
    "TensorTrainEmbedding",
    "TensorTrainEmbeddingSpec",
    "TensorTrainLinear",
    "TensorTrainLinearSpec",
    "bias_of",
    "grids_of",
    "is_learning",
    "is_transposed",
    "linear",
    "matrices_of",
    "narrowed",
    "pack",
    "packed",
    "parse_spec",
    "quantized_tensors",
    "require_fit",
    "require_reasonable",
    "require_same_place",
    "rounded_inputs",
    "scale_of",
    "spanning",
    "spec_of",
    "stored_numbers",
    "structured_layers",
    "unrounded",
    "weight_of",
]
