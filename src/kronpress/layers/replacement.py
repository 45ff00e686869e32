"""What stands at a module path now, and whether another layer may stand in its place."""

from __future__ import annotations

from torch import nn

from kronpress.errors import KronpressError
from kronpress.layers.dense import DenseEmbeddingSpec, DenseLinearSpec, is_transposed, scale_of, weight_of
from kronpress.layers.specs import LayerSpec, TableSpec
from kronpress.layers.structured import StructuredLayer, bias_of


def spec_of(module: nn.Module) -> LayerSpec | None:
    """Return the form of a linear layer or of a token table, dense or not; None for any other module."""
    if isinstance(module, StructuredLayer):
        return module.spec
    if isinstance(module, nn.Embedding):
        rows, columns = module.num_embeddings, module.embedding_dim
        return DenseEmbeddingSpec(
            num_embeddings=rows, embedding_dim=columns, padding_idx=module.padding_idx, scale=scale_of(module)
        )
    if isinstance(module, nn.Linear) or is_transposed(module):
        rows, columns = weight_of(module).shape
        return DenseLinearSpec(in_features=columns, out_features=rows, bias=bias_of(module) is not None)
    return None


def require_fit(spec: LayerSpec, module: nn.Module, *, place: str) -> None:
    """Check that what `spec` describes can replace `module`: a table a table, and of the same size.

    Raises:
        KronpressError: it can not; `place` is what the message calls the spec.
    """
    there = spec_of(module)
    if there is None:
        raise KronpressError(
            f"{place}: the model has a {type(module).__name__} there; only linear layers and token tables have factors"
        )
    require_same_place(spec, there, place=place, remedy="its config.json is of another model: restore it")


def require_same_place(spec: LayerSpec, there: LayerSpec, *, place: str, remedy: str) -> None:
    """Check that what `spec` describes can stand where `there` does: a table for a table, and of the same size.

    Raises:
        KronpressError: it can not; `place` is what the message calls the spec, and `remedy` what it tells the user.
    """
    described, standing = _noun(spec), _noun(there)
    if described != standing:
        raise KronpressError(f"{place} describes {described}, and the model has {standing} there; {remedy}")
    if spec.matrix != there.matrix:
        (rows, columns), (m, n) = there.matrix, spec.matrix
        raise KronpressError(
            f"{place} describes a matrix of {m} × {n} (out × in), and the model has one of {rows} × {columns} there; "
            f"{remedy}"
        )
    if isinstance(spec, TableSpec) and isinstance(there, TableSpec) and spec.scale != there.scale:
        raise KronpressError(
            f"{place} multiplies its rows by {spec.scale:g}, and the model's table does so by {there.scale:g}; {remedy}"
        )


def _noun(spec: LayerSpec) -> str:
    return "a token table" if isinstance(spec, TableSpec) else "a linear layer"
