"""What every layer that computes with factors has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from pydantic import StrictBool
from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.layers.formats import TensorFormat
from kronpress.layers.specs import Device, DType, InnerProducts, LayerSpec


class NoWeightError(KronpressError, AttributeError):
    """A dense weight is asked of a layer that has none; `hasattr` takes this for no."""


class StructuredSpec(LayerSpec):
    """The form of a layer that computes with factors."""

    def build(self, *, device: Device = None, dtype: DType = None) -> StructuredLayer:
        """Return a layer of this form whose numbers are not set."""
        raise NotImplementedError


class LinearSpec(StructuredSpec):
    """The form of a linear layer, which can be a share of a fused one."""

    bias: StrictBool = True


class StructuredLayer(nn.Module, ABC):
    """A layer that stores factors in place of a dense weight, and knows its dense twin.

    None of them subclasses `nn.Linear`: other tools would take its missing `weight` for a dense one.
    """

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            raise NoWeightError(
                f"a {type(self).__name__} computes with factors and has no attribute 'weight'; its size is `matrix`, "
                "and `to_dense()` returns the dense layer that computes the same"
            )
        return super().__getattr__(name)

    @property
    @abstractmethod
    def spec(self) -> StructuredSpec:
        """The form of the layer as it is now."""

    @abstractmethod
    def to_dense(self) -> nn.Module:
        """Return the dense layer that computes the same function."""

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the dense weight that the factors stand for."""
        return self.spec.matrix

    @property
    def inner_products(self) -> InnerProducts:
        """The inner products that one token takes."""
        return self.spec.inner_products

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations for one token, counting 2 for a multiply-add."""
        return self.spec.flops_per_token

    @property
    def parameter_count(self) -> int:
        """Numbers stored; the integers of an order are not counted, as no paper does."""
        return self.spec.parameters

    @property
    def byte_count(self) -> int:
        """Bytes stored, those of integer orders included."""
        return self.spec.bytes(TensorFormat.of(next(self.parameters()).dtype))


def structured_layers(model: nn.Module) -> dict[str, StructuredLayer]:
    """Return the structured layers of a model by path, none of them inside of another."""
    layers: dict[str, StructuredLayer] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, StructuredLayer) and not path.startswith(tuple(f"{outer}." for outer in layers)):
            layers[path] = module
    return layers


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Keep a look-up in the number format of the table; the meta device has no autocast to be turned off."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def empty(*shape: int, device: Device = None, dtype: DType = None) -> nn.Parameter:
    """Return an uninitialized parameter."""
    return nn.Parameter(torch.empty(*shape, device=device, dtype=dtype))


def bias_of(layer: nn.Module) -> Tensor | None:
    """Return the layer's bias, if it has one."""
    bias = getattr(layer, "bias", None)
    return bias if isinstance(bias, Tensor) else None
