"""Whether a layer may stand in the place of another."""

from __future__ import annotations

from torch import nn

from kronpress.errors import KronpressError
from kronpress.layers.dense import is_transposed, weight_of
from kronpress.layers.embedding import FactoredEmbedding
from kronpress.layers.specs import LayerSpec, Table
from kronpress.layers.structured import StructuredLayer


def require_fit(spec: LayerSpec, module: nn.Module, *, place: str) -> None:
    """Check that what `spec` describes can replace `module`: a table a table, and of the same size.

    Raises:
        KronpressError: it can not; `place` is what the message calls the spec.
    """
    matrix, table = _matrix(module), isinstance(module, nn.Embedding | FactoredEmbedding)
    if matrix is None:
        raise KronpressError(
            f"{place}: the model has a {type(module).__name__} there; only linear layers and token tables have factors"
        )
    if table is not isinstance(spec, Table):
        kind, there = ("a linear layer", "a token table") if table else ("a token table", "a linear layer")
        raise KronpressError(f"{place} describes {kind}, and the model has {there} there; restore config.json")
    if spec.matrix != matrix:
        (rows, columns), (m, n) = matrix, spec.matrix
        raise KronpressError(
            f"{place} describes a matrix of {m} × {n} (out × in), and the model has one of {rows} × {columns} there; "
            "its config.json is of another model: restore it"
        )


def _matrix(module: nn.Module) -> tuple[int, int] | None:
    """Return the (rows, columns) of a layer's weight, out × in, or None where it has no such weight."""
    if isinstance(module, StructuredLayer):
        return module.matrix
    if isinstance(module, nn.Embedding):
        return module.num_embeddings, module.embedding_dim
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if not is_transposed(module):
        return None
    rows, columns = weight_of(module).shape
    return rows, columns
