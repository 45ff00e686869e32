"""What every layer that computes with factors has in common."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from pydantic import Field, StrictBool, model_validator
from torch import Tensor, nn

from kronpress.errors import KronpressError, shown
from kronpress.layers.formats import FLOAT32, TensorFormat, TensorSpec
from kronpress.layers.grid import Grid
from kronpress.layers.quantized_tensor import QuantizedTensor
from kronpress.layers.rounded_inputs import InputGrid, RoundedInputs
from kronpress.layers.specs import Device, DType, InnerProducts, LayerSpec, TableSpec


class NoWeightError(KronpressError, AttributeError):
    """A dense weight is asked of a layer that has none; `hasattr` takes this for no."""


class StructuredSpec(LayerSpec):
    """The form of a layer that computes with factors, or on a grid.

    Attributes:
        stored: the grids of its tensors, by their names; others are in the number format of the model.
        inputs: where its inputs are rounded to, if they are.
    """

    stored: Mapping[str, Grid] = Field(default={})
    inputs: InputGrid | None = None

    @model_validator(mode="after")
    def _has_them(self) -> StructuredSpec:
        matrices = [name for name, tensor in self.own_tensors.items() if len(tensor.shape) > 1]
        for name, grid in self.stored.items():
            if name not in matrices:
                raise KronpressError(f"stored: {shown(name)} is none of {', '.join(matrices) or 'its tensors'}")
            grid.require(self.own_tensors[name].shape)
        if self.inputs is not None and isinstance(self, TableSpec):
            raise KronpressError("inputs: a token table reads ids, which lie on no grid; leave it out")
        return self

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        """The stored tensors by name, those on grids as such."""
        tensors = {
            name: TensorSpec(tensor.shape, self.stored[name]) if name in self.stored else tensor
            for name, tensor in super().tensors.items()
        }
        ranges = () if self.inputs is None else self.inputs.ranges
        return tensors | {f"inputs.{name}": TensorSpec((1, 1), FLOAT32) for name in ranges}

    def build(self, *, device: Device = None, dtype: DType = None) -> StructuredLayer:
        """Return a layer of this form whose numbers are not set."""
        raise NotImplementedError


class LinearSpec(StructuredSpec):
    """The form of a linear layer, which can be a share of a fused one."""

    bias: StrictBool = True


class Storing(nn.Module):
    """A module of whose tensors some lie on grids; they are read by their names, as parameters are."""

    def __getattr__(self, name: str) -> Any:
        tensor = self.on_grid(name)
        return super().__getattr__(name) if tensor is None else tensor()

    def on_grid(self, name: str) -> QuantizedTensor | None:
        """Return the tensor of a name, if it lies on a grid."""
        stored = self.__dict__.get("_modules", {}).get("stored", ())
        if name not in stored:
            return None
        tensor: QuantizedTensor = stored[name]
        return tensor

    def on_grids(self) -> dict[str, QuantizedTensor]:
        """Return those by name."""
        stored = self._modules.get("stored") or nn.ModuleDict()
        return {name: tensor for name, tensor in stored.named_children() if isinstance(tensor, QuantizedTensor)}

    def store(self, name: str, tensor: QuantizedTensor) -> None:
        """Put a tensor on a grid in the place of a parameter."""
        if "stored" not in self._modules:
            self.stored = nn.ModuleDict()
        self.register_parameter(name, None)
        self.stored[name] = tensor


class StructuredLayer(Storing, ABC):
    """A layer that stores factors, or numbers on a grid, in place of a dense weight, and knows its dense twin.

    None of them subclasses `nn.Linear`: other tools would take its missing `weight` for a dense one.
    """

    def __getattr__(self, name: str) -> Any:
        if name == "weight" and not self._has_weight():
            raise NoWeightError(
                f"a {type(self).__name__} computes with factors and has no attribute 'weight'; its size is `matrix`, "
                "and `to_dense()` returns the dense layer that computes the same"
            )
        return super().__getattr__(name)

    def _has_weight(self) -> bool:
        own = self.__dict__
        return "weight" in own.get("_parameters", ()) or "weight" in own.get("_modules", {}).get("stored", ())

    def quantized(self) -> dict[str, QuantizedTensor]:
        """Return the tensors on grids by name, without those of the layers inside."""
        holders = {"": self, **{f"{name}.": part for name, part in self.named_children()}}
        own = {at: part for at, part in holders.items() if part is self or not isinstance(part, StructuredLayer)}
        return {
            at + name: tensor
            for at, part in own.items()
            if isinstance(part, Storing)
            for name, tensor in part.on_grids().items()
        }

    def round_inputs(self, rounding: RoundedInputs) -> None:
        """Round whatever the layer is given from now on."""
        if "inputs" not in self._modules:
            self.register_forward_pre_hook(_rounded)
        self.inputs = rounding

    @property
    def rounding(self) -> RoundedInputs | None:
        """What rounds the inputs of the layer, if they are rounded."""
        inputs = self._modules.get("inputs")
        return inputs if isinstance(inputs, RoundedInputs) else None

    @property
    def grids(self) -> dict[str, Any]:
        """The fields of the spec that are about grids, as they are now."""
        inputs = None if self.rounding is None else self.rounding.grid
        return {"stored": {name: tensor.grid for name, tensor in self.quantized().items()}, "inputs": inputs}

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
        numbers = next(self.parameters(), None)
        return self.spec.bytes(FLOAT32 if numbers is None else TensorFormat.of(numbers.dtype))


def structured_layers(model: nn.Module) -> dict[str, StructuredLayer]:
    """Return the structured layers of a model by path, none of them inside of another."""
    layers: dict[str, StructuredLayer] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, StructuredLayer) and not path.startswith(tuple(f"{at}." if at else "" for at in layers)):
            layers[path] = module
    return layers


def stored_numbers(module: nn.Module) -> int:
    """Count the numbers that a model or a part of it stores, a shared one once: parameters, and those behind codes."""
    packed = {
        tuple(id(buffer) for buffer in layer.buffers()): layer.parameter_count - _parameter_count(layer)
        for layer in structured_layers(module).values()
        if any(True for _ in layer.buffers())
    }
    return _parameter_count(module) + sum(packed.values())


def _parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


Layer = TypeVar("Layer", bound=StructuredLayer)


def on_grids(layer: Layer, spec: StructuredSpec) -> Layer:
    """Return a layer as it was built, its tensors on the grids of the spec; the codes are not set."""
    tensors = spec.own_tensors
    for name, grid in spec.stored.items():
        path, _, own = name.rpartition(".")
        holder = layer.get_submodule(path)
        assert isinstance(holder, Storing)
        like = holder.get_parameter(own)
        holder.store(own, QuantizedTensor(grid, tensors[name].shape, device=like.device, dtype=like.dtype))
    if spec.inputs is not None:
        layer.round_inputs(RoundedInputs(spec.inputs, device=_device_of(layer)))
    return layer


def _device_of(layer: nn.Module) -> torch.device:
    return next(tensor.device for tensor in itertools.chain(layer.parameters(), layer.buffers()))


def _rounded(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    rounding = layer.inputs
    assert isinstance(rounding, RoundedInputs)
    return rounding(args[0]), *args[1:]


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
