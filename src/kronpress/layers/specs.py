"""What stands at a module path, as a value: its shapes, its costs, and the layer that it builds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_serializer,
    model_validator,
)
from torch import nn

from kronpress.errors import KronpressError, did_you_mean, shown
from kronpress.layers.formats import FLOAT32, TensorFormat, TensorSpec
from kronpress.registry import Shelf

_UNSAID: tuple[tuple[str, Any], ...] = (
    ("stored", {}),
    ("inputs", None),
    ("runs", 1),
    ("scale", 1.0),
)
"""What files leave out, as those of earlier versions do."""
_DEEPEST = 8  # tables in tables
_LARGEST = 2**31
_FACTOR, _ALLOWANCE = 16, 2**20
_REMEDY = "restore config.json, or save the model again"

Size = Annotated[int, Field(strict=True, ge=1, lt=_LARGEST)]
Pair = Annotated[tuple[Size, ...], Field(min_length=2, max_length=2)]
Padding = Annotated[int, Field(strict=True, ge=0, lt=_LARGEST)] | None

Device = torch.device | str | None
DType = torch.dtype | None
InnerProducts = list[tuple[int, int]]
"""Their (length, count)."""

Spec = TypeVar("Spec", bound="LayerSpec")


class LayerSpec(BaseModel):
    """What stands at one module path; in JSON a mapping of its kind and its fields.

    Nothing that depends on a machine is in it: how a layer computes is chosen when it is built.

    Attributes:
        kind: what files call such a layer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str] = ""

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the dense weight, or of the one that factors stand for; rows are outputs or tokens."""
        raise NotImplementedError

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """The stored tensors by name, without those of the layers inside."""
        raise NotImplementedError

    @property
    def inside(self) -> dict[str, LayerSpec]:
        """The layers that this one consists of, by path."""
        return {}

    @property
    def inner_products(self) -> InnerProducts:
        """The inner products that one token takes."""
        raise NotImplementedError

    def build(self, *, device: Device = None, dtype: DType = None) -> nn.Module:
        """Return a layer of this form whose numbers are not set."""
        raise NotImplementedError

    def tensor(self, *shape: int) -> TensorSpec:
        """Return a tensor in the number format of the model."""
        return TensorSpec(shape)

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        """The stored tensors by name."""
        inner = {f"{path}.{name}": t for path, spec in self.inside.items() for name, t in spec.tensors.items()}
        return self.own_tensors | inner

    @property
    def state(self) -> dict[str, TensorSpec]:
        """What the state dict of the packed layer holds, by its keys."""
        return {key: part for name, tensor in self.tensors.items() for key, part in tensor.state(name).items()}

    @property
    def parameters(self) -> int:
        """The numbers stored: factors, scales, bias; the integers of an order are not counted, as no paper does."""
        return sum(tensor.parameters for tensor in self.tensors.values())

    @property
    def bias_parameters(self) -> int:
        """Those of the bias."""
        return self.own_tensors["bias"].parameters if "bias" in self.own_tensors else 0

    def bytes(self, model: TensorFormat = FLOAT32) -> int:
        """Return what all tensors take, orders included, in a model that is stored in the format `model`."""
        return sum(tensor.bytes(model) for tensor in self.tensors.values())

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations for one token, counting 2 for a multiply-add."""
        return sum(2 * length * count for length, count in self.inner_products)

    @property
    def depth(self) -> int:
        """How many layers stand inside of one another, this one included."""
        return 1 + max((spec.depth for spec in self.inside.values()), default=0)

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_kind(cls, value: Any, handler: Callable[[Any], Any], info: Any) -> Any:
        """Let a mapping be what its kind says, of those that are a `cls`."""
        if not isinstance(value, dict) or (cls.kind and "kind" not in value):
            return handler(value)
        kind, depth = value.get("kind"), (info.context or {}).get("depth", 0)
        if depth >= _DEEPEST:
            raise _too_deep()
        spec = _require_kind(kind, cls)
        fields = {name: field for name, field in value.items() if name != "kind"}
        return handler(fields) if spec is cls else spec.model_validate(fields, context={"depth": depth + 1})

    @model_serializer(mode="wrap")
    def _with_kind(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        fields = {name: value for name, value in handler(self).items() if (name, value) not in _UNSAID}
        return {"kind": self.kind} | fields

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Go through the fields that are not at their default, first those that have none."""
        fields = type(self).model_fields
        for name in sorted(fields, key=lambda name: not fields[name].is_required()):
            if (value := getattr(self, name)) != fields[name].default:
                yield name, value


SPECS: Shelf[type[LayerSpec]] = Shelf("layer kind")


class TableSpec(LayerSpec):
    """A token table; `scale` is what its rows are multiplied by as they are looked up."""

    padding_idx: Padding = None
    scale: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _has_padding(self) -> TableSpec:
        if self.padding_idx is not None and self.padding_idx >= self.matrix[0]:
            raise KronpressError(f"padding_idx is {self.padding_idx}; the table has the rows 0 to {self.matrix[0] - 1}")
        return self


def parse_spec(value: Any, of: type[Spec], *, place: str, remedy: str = _REMEDY) -> Spec:
    """Validate what is said of one layer.

    Args:
        value: a mapping with the kind and the fields.
        of: what it is to be.
        place: what messages call it.
        remedy: what messages tell the user to do.

    Raises:
        KronpressError: no mapping, an unknown kind, an unknown, missing or wrong field, or sizes beyond reason.
    """
    if not isinstance(value, dict):
        raise KronpressError(f"{place} is {_short(value)}, not a mapping with the kind and sizes of a layer; {remedy}")
    kind = value.get("kind")
    _require_kind(kind, of, place=f"{place}: ")
    try:
        spec = of.model_validate(value)
        require_reasonable(spec)
    except ValidationError as error:
        raise KronpressError(f"{place} ({kind}): {_explain(dict(error.errors()[0]))}; {remedy}") from error
    except KronpressError as error:
        raise KronpressError(f"{place} ({kind}): {error}; {remedy}") from error
    return spec


def require_reasonable(spec: LayerSpec) -> None:
    """Check that a layer is not far larger than the dense one, nor too deep, before any of it is built.

    Raises:
        KronpressError: it is.
    """
    rows, columns = spec.matrix
    if spec.depth > _DEEPEST:
        raise _too_deep()
    if spec.parameters > _FACTOR * rows * columns + _ALLOWANCE:
        raise KronpressError(
            f"its factors would hold {spec.parameters:.3g} numbers in the place of the {rows * columns:.3g} of a "
            f"dense layer; at most {_FACTOR} times as many are read"
        )


def _require_kind(kind: Any, of: type[LayerSpec], *, place: str = "") -> type[LayerSpec]:
    """Return the class of a kind, which must be an `of`."""
    kinds = {name: spec for name, spec in SPECS.items() if issubclass(spec, of)}
    if isinstance(kind, str) and kind in kinds:
        return kinds[kind]
    if isinstance(kind, str) and kind in SPECS:
        raise KronpressError(f"{place}'{kind}' as a kind does not match this place; choose one of: {', '.join(kinds)}")
    raise KronpressError(f"{place}unknown layer kind {_short(kind)}: {did_you_mean(kind, kinds)}")


def _explain(error: dict[str, Any]) -> str:
    """Say which field is wrong and why."""
    names = [str(name) for name in error["loc"]]
    path = ".".join(names if len(names) < _DEEPEST else [*names[:3], "…"])
    reason = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"unknown field {_short(path)}, which a newer kronpress may know"
    if error["type"] == "missing":
        return f"the field '{path}' is missing"
    if error["type"] == "value_error":  # it names the value itself
        return f"{path}: {reason}" if path else reason
    if error["type"] == "model_type":
        reason = "not a mapping with the kind and sizes of a layer"
    return f"{path} is {_short(error['input'])}: {reason}"


def _short(value: Any) -> str:
    """Return at most a line of what stands in the file."""
    return "a number of more than 30 digits" if isinstance(value, int) and abs(value) > 10**30 else shown(value)


def _too_deep() -> KronpressError:
    return KronpressError(f"more than {_DEEPEST} layers stand inside of one another; nest fewer")


def require_alike(widths: Sequence[int], what: str) -> None:
    """Check that what stands side by side takes the same input."""
    if len(set(widths)) > 1:
        raise KronpressError(f"the {what} have {', '.join(map(str, widths[:8]))} columns; they must have equally many")
