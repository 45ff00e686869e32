"""What every layer that computes with factors has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.layers.specs import parse_spec
from kronpress.registry import Shelf

InnerProducts = list[tuple[int, int]]


class NoWeightError(KronpressError, AttributeError):
    """A dense weight is asked of a layer that has none; `hasattr` takes this for no."""


class StructuredLayer(nn.Module, ABC):
    """A layer that stores factors in place of a dense weight, and knows its dense twin.

    None of them subclasses `nn.Linear`: other tools would take its missing `weight` for a dense one.
    """

    kind: ClassVar[str]

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            raise NoWeightError(
                f"a {type(self).__name__} computes with factors and has no attribute 'weight'; its size is `matrix`, "
                "and `to_dense()` returns the dense layer that computes the same"
            )
        return super().__getattr__(name)

    @abstractmethod
    def to_dense(self) -> nn.Module:
        """Return the dense layer that computes the same function."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Return what `from_spec` needs to build an empty layer of the same form, as JSON values."""

    @property
    @abstractmethod
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the dense weight that the factors stand for."""

    @property
    @abstractmethod
    def inner_products(self) -> InnerProducts:
        """The (length, count) of the inner products that one token takes."""

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations for one token, counting 2 for a multiply-add."""
        return sum(2 * length * count for length, count in self.inner_products)

    @property
    def parameter_count(self) -> int:
        """Numbers stored; the integers of an order are not counted, as no paper does."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def byte_count(self) -> int:
        """Bytes stored, those of integer orders included."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.parameters(), *self.buffers()))


LAYERS: Shelf[type[StructuredLayer]] = Shelf("layer kind")


def from_spec(
    spec: dict[str, Any], *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> StructuredLayer:
    """Build an empty layer from what its `spec()` returned.

    Raises:
        KronpressError: the kind is not known to this version, or the other fields are not those of the kind.
    """
    parse_spec(spec, place="the spec")
    kind: Any = LAYERS[spec["kind"]]
    layer: StructuredLayer = kind(
        **{name: value for name, value in spec.items() if name != "kind"}, device=device, dtype=dtype
    )
    return layer


def built(
    layer: dict[str, Any] | StructuredLayer, *, device: torch.device | str | None, dtype: torch.dtype | None
) -> StructuredLayer:
    """Return the part of a layer that is given as such or by its spec."""
    return from_spec(layer, device=device, dtype=dtype) if isinstance(layer, dict) else layer


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Keep a look-up in the number format of the table; the meta device has no autocast to be turned off."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def empty(*shape: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> nn.Parameter:
    """Return an uninitialized parameter."""
    return nn.Parameter(torch.empty(*shape, device=device, dtype=dtype))


def bias_of(layer: nn.Module) -> Tensor | None:
    """Return the layer's bias, if it has one."""
    bias = getattr(layer, "bias", None)
    return bias if isinstance(bias, Tensor) else None
