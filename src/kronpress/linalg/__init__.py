"""Plain tensors: Kronecker algebra, low rank, and least squares with a choice of columns."""

from kronpress.linalg.balancing import Balanced, balance
from kronpress.linalg.elimination import eliminate, inputs_of, refit
from kronpress.linalg.grouping import RowGroup, low_rank_groups
from kronpress.linalg.kronecker import KroneckerSum, expand, nearest_kronecker_sum, rearrange
from kronpress.linalg.low_rank import LowRank, nearest_low_rank
from kronpress.linalg.low_rank_sparse import LowRankSparse, nearest_low_rank_sparse
from kronpress.linalg.monarch import MonarchMatrix, expand_monarch, nearest_monarch, require_blocks
from kronpress.linalg.packing import look_up, look_up_rows, pack, packed_size, unpack
from kronpress.linalg.permutation import (
    Member,
    PermutedKroneckerSum,
    nearest_permuted_kronecker_sum,
    search_orders,
)
from kronpress.linalg.ridge import energy, positive_definite, with_ridge
from kronpress.linalg.shapes import KroneckerShape, divisors
from kronpress.linalg.svd import TruncatedSVD, truncated_svd, truncated_svd_each
from kronpress.linalg.tensor_train import (
    Modes,
    TensorTrainMatrix,
    TensorTrainTable,
    balanced_modes,
    check_modes,
    expand_rows,
    expand_train,
    paired_modes,
    tensor_train_matrix,
    tensor_train_rows,
    train_ranks,
)
from kronpress.linalg.weighted_kronecker import weighted_kronecker_sum

__all__ = [
    "Balanced",
    "KroneckerShape",
    "KroneckerSum",
    "LowRank",
    "LowRankSparse",
    "Member",
    "Modes",
    "MonarchMatrix",
    "PermutedKroneckerSum",
    "RowGroup",
    "TensorTrainMatrix",
    "TensorTrainTable",
    "TruncatedSVD",
    "balance",
    "balanced_modes",
    "check_modes",
    "divisors",
    "eliminate",
    "energy",
    "expand",
    "expand_monarch",
    "expand_rows",
    "expand_train",
    "inputs_of",
    "look_up",
    "look_up_rows",
    "low_rank_groups",
    "nearest_kronecker_sum",
    "nearest_low_rank",
    "nearest_low_rank_sparse",
    "nearest_monarch",
    "nearest_permuted_kronecker_sum",
    "pack",
    "packed_size",
    "paired_modes",
    "positive_definite",
    "rearrange",
    "refit",
    "require_blocks",
    "search_orders",
    "tensor_train_matrix",
    "tensor_train_rows",
    "train_ranks",
    "truncated_svd",
    "truncated_svd_each",
    "unpack",
    "weighted_kronecker_sum",
    "with_ridge",
]
