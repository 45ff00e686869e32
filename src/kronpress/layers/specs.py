"""What may stand in the spec of each kind of layer, checked before anything is built from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from kronpress.errors import KronpressError, did_you_mean, shown
from kronpress.registry import Shelf

_DEEPEST = 8  # tables in tables
_LARGEST = 2**31
_FACTOR, _ALLOWANCE = 16, 2**20
_REMEDY = "restore config.json, or save the model again"

Size = Annotated[int, Field(strict=True, ge=1, lt=_LARGEST)]
Pair = Annotated[list[Size], Field(min_length=2, max_length=2)]
Modes = Annotated[list[Size], Field(min_length=1, max_length=64)]
Padding = Annotated[int, Field(strict=True, ge=0, lt=_LARGEST)] | None


class LayerSpec(BaseModel):
    """The form of a layer: its fields are those that the layer's `spec()` returns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the dense weight that the factors stand for."""
        raise NotImplementedError

    @property
    def numbers(self) -> int:
        """How many numbers the factors have; biases, scales and orders are not counted."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """How many specs stand inside of one another, this one included."""
        return 1

    @model_validator(mode="after")
    def _is_reasonable(self) -> LayerSpec:
        rows, columns = self.matrix
        if self.depth > _DEEPEST:
            raise KronpressError(f"more than {_DEEPEST} layers stand inside of one another; nest fewer")
        if self.numbers > _FACTOR * rows * columns + _ALLOWANCE:
            raise KronpressError(
                f"its factors would hold {self.numbers:.3g} numbers in the place of the {rows * columns:.3g} of a "
                f"dense layer; at most {_FACTOR} times as many are read"
            )
        return self


SPECS: Shelf[type[LayerSpec]] = Shelf("layer kind")


class Table(LayerSpec):
    """A token table."""

    padding_idx: Padding = None

    @model_validator(mode="after")
    def _has_padding(self) -> Table:
        if self.padding_idx is not None and self.padding_idx >= self.matrix[0]:
            raise KronpressError(f"padding_idx is {self.padding_idx}; the table has the rows 0 to {self.matrix[0] - 1}")
        return self


class Kronecker(LayerSpec):
    """A sum of Kronecker products."""

    left: Pair
    right: Pair
    terms: Size = 1
    scales: StrictBool = False
    orders: list[Literal["row_order", "column_order"]] = []

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the products."""
        return self.left[0] * self.right[0], self.left[1] * self.right[1]

    @property
    def numbers(self) -> int:
        """Those of the left and the right factors."""
        return self.terms * (math.prod(self.left) + math.prod(self.right))


@SPECS.register("kronecker_linear")
class KroneckerLinearSpec(Kronecker):
    """See `KroneckerLinear`."""

    kind: Literal["kronecker_linear"]
    bias: StrictBool = True


@SPECS.register("kronecker_embedding")
class KroneckerEmbeddingSpec(Kronecker, Table):
    """See `KroneckerEmbedding`."""

    kind: Literal["kronecker_embedding"]


@SPECS.register("nested_kronecker_embedding")
class NestedKroneckerEmbeddingSpec(Table):
    """See `NestedKroneckerEmbedding`."""

    kind: Literal["nested_kronecker_embedding"]
    inner: AnyTable
    right: Pair
    column_order: StrictBool = False

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the product."""
        rows, columns = self.inner.matrix
        return rows * self.right[0], columns * self.right[1]

    @property
    def numbers(self) -> int:
        """Those of the inner table and of the right factor."""
        return self.inner.numbers + math.prod(self.right)

    @property
    def depth(self) -> int:
        """One more than the inner table's."""
        return 1 + self.inner.depth


@SPECS.register("grouped_embedding")
class GroupedEmbeddingSpec(Table):
    """See `GroupedEmbedding`."""

    kind: Literal["grouped_embedding"]
    groups: Annotated[list[AnyTable], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_one_width(self) -> GroupedEmbeddingSpec:
        _require_alike([group.matrix[1] for group in self.groups], "groups")
        return self

    @property
    def matrix(self) -> tuple[int, int]:
        """The rows of all groups, and their common width."""
        return sum(group.matrix[0] for group in self.groups), self.groups[0].matrix[1]

    @property
    def numbers(self) -> int:
        """Those of all groups."""
        return sum(group.numbers for group in self.groups)

    @property
    def depth(self) -> int:
        """One more than the deepest group's."""
        return 1 + max(group.depth for group in self.groups)


@SPECS.register("tensor_train_embedding")
class TensorTrainEmbeddingSpec(Table):
    """See `TensorTrainEmbedding`."""

    kind: Literal["tensor_train_embedding"]
    num_embeddings: Size
    modes: Modes
    ranks: list[Size]

    @model_validator(mode="after")
    def _has_ranks(self) -> TensorTrainEmbeddingSpec:
        _require_ranks(self.ranks, len(self.modes))
        return self

    @property
    def matrix(self) -> tuple[int, int]:
        """The rows, and their length."""
        return self.num_embeddings, math.prod(self.modes)

    @property
    def numbers(self) -> int:
        """Those of the cores of all rows."""
        return self.num_embeddings * _train_numbers(self.modes, self.ranks)


AnyTable = Annotated[
    KroneckerEmbeddingSpec | NestedKroneckerEmbeddingSpec | GroupedEmbeddingSpec | TensorTrainEmbeddingSpec,
    Field(discriminator="kind"),
]


@SPECS.register("factored_head")
class FactoredHeadSpec(LayerSpec):
    """See `FactoredHead`."""

    kind: Literal["factored_head"]
    table: AnyTable
    bias: StrictBool = False

    @property
    def matrix(self) -> tuple[int, int]:
        """Those of the table."""
        return self.table.matrix

    @property
    def numbers(self) -> int:
        """Those of the table."""
        return self.table.numbers


@SPECS.register("low_rank_linear")
class LowRankLinearSpec(LayerSpec):
    """See `LowRankLinear`."""

    kind: Literal["low_rank_linear"]
    in_features: Size
    out_features: Size
    rank: Size
    bias: StrictBool = True

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the product."""
        return self.out_features, self.in_features

    @property
    def numbers(self) -> int:
        """Those of the two factors."""
        return self.rank * (self.in_features + self.out_features)


@SPECS.register("tensor_train_linear")
class TensorTrainLinearSpec(LayerSpec):
    """See `TensorTrainLinear`."""

    kind: Literal["tensor_train_linear"]
    modes: Annotated[list[Pair], Field(min_length=1, max_length=64)]
    ranks: list[Size]
    bias: StrictBool = True

    @model_validator(mode="after")
    def _has_ranks(self) -> TensorTrainLinearSpec:
        _require_ranks(self.ranks, len(self.modes))
        return self

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the matrix that the cores stand for."""
        return math.prod(m for m, _ in self.modes), math.prod(n for _, n in self.modes)

    @property
    def numbers(self) -> int:
        """Those of the cores."""
        return _train_numbers([m * n for m, n in self.modes], self.ranks)


@SPECS.register("fused_linear")
class FusedLinearSpec(LayerSpec):
    """See `FusedLinear`."""

    kind: Literal["fused_linear"]
    parts: Annotated[list[Part], Field(min_length=1)]
    bias: StrictBool = True

    @model_validator(mode="after")
    def _has_one_width(self) -> FusedLinearSpec:
        _require_alike([part.matrix[1] for part in self.parts], "parts")
        if any(part.bias for part in self.parts):
            raise KronpressError("a part has a bias of its own; the bias is that of the whole layer")
        return self

    @property
    def matrix(self) -> tuple[int, int]:
        """The rows of all parts, and their common columns."""
        return sum(part.matrix[0] for part in self.parts), self.parts[0].matrix[1]

    @property
    def numbers(self) -> int:
        """Those of all parts."""
        return sum(part.numbers for part in self.parts)


Part = Annotated[KroneckerLinearSpec | LowRankLinearSpec | TensorTrainLinearSpec, Field(discriminator="kind")]


def parse_spec(spec: Any, *, place: str) -> LayerSpec:
    """Validate what is said of one layer; `place` is what the message calls it.

    Raises:
        KronpressError: no mapping, an unknown kind, an unknown, missing or wrong field, or sizes beyond reason.
    """
    if not isinstance(spec, dict):
        raise KronpressError(f"{place} is {_short(spec)}, not a mapping with the kind and sizes of a layer; {_REMEDY}")
    kind = spec.get("kind")
    if not isinstance(kind, str) or kind not in SPECS:
        raise KronpressError(f"{place}: unknown layer kind {_short(kind)}: {did_you_mean(str(kind)[:80], SPECS)}")
    try:
        return SPECS[kind].model_validate(spec)
    except ValidationError as error:
        raise KronpressError(f"{place} ({kind}): {_explain(dict(error.errors()[0]))}; {_REMEDY}") from error


def _explain(error: dict[str, Any]) -> str:
    """Say which field is wrong and why, without the kinds of the layers that pydantic lists on the way to it."""
    names = [str(name) for name in error["loc"] if name not in SPECS]
    path = ".".join(names if len(names) < _DEEPEST else [*names[:3], "…"])
    reason = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "recursion_depth_exceeded":
        return f"too many layers stand inside of one another in {path}"
    if error["type"] == "extra_forbidden":
        return f"unknown field {_short(path)}, which a newer kronpress may know"
    if error["type"] == "missing":
        return f"the field '{path}' is missing"
    if error["type"] == "value_error":  # it names the value itself
        return f"{path}: {reason}" if path else reason
    return f"{path} is {_short(error['input'])}: {reason}"


def _short(value: Any) -> str:
    """Return at most a line of what stands in the file."""
    return "a number of more than 30 digits" if isinstance(value, int) and abs(value) > 10**30 else shown(value)


def _require_alike(widths: Sequence[int], what: str) -> None:
    if len(set(widths)) > 1:
        raise KronpressError(f"the {what} have {', '.join(map(str, widths[:8]))} columns; they must have equally many")


def _require_ranks(ranks: Sequence[int], cores: int) -> None:
    if len(ranks) != cores - 1:
        raise KronpressError(f"{len(ranks)} ranks for {cores} modes; give those between the cores, {cores - 1}")


def _train_numbers(sizes: Sequence[int], ranks: Sequence[int]) -> int:
    return sum(r * size * s for r, size, s in zip([1, *ranks], sizes, [*ranks, 1], strict=False))
