"""Which tensors of a layer can lie on a grid, and where they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from kronpress.layers.quantized_tensor import QuantizedTensor
from kronpress.layers.rounded_inputs import RoundedInputs
from kronpress.layers.structured import Storing, StructuredLayer


@dataclass(frozen=True)
class Matrix:
    """A tensor of a layer that lies on a grid, or can be put on one.

    Attributes:
        layer: the layer that it belongs to, which may stand inside of another.
        name: as the layer's spec calls it.
    """

    layer: StructuredLayer
    name: str

    @property
    def tensor(self) -> Tensor:
        """Its numbers."""
        value = self._holder().__getattr__(self._own)
        assert isinstance(value, Tensor)
        return value

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.layer.spec.own_tensors[self.name].shape

    @property
    def latent(self) -> Tensor:
        """Its numbers before they are put on a grid, as far as they are there: latent ones, or those that it has."""
        tensor = self.quantized
        numbers = self.tensor if tensor is None or tensor.latent is None else tensor.latent
        return numbers.detach().float()

    @property
    def quantized(self) -> QuantizedTensor | None:
        """What holds it on its grid; None where it is on none."""
        return self.layer.quantized().get(self.name)

    def store(self, tensor: QuantizedTensor) -> None:
        """Put a tensor on a grid in its place."""
        self._holder().store(self._own, tensor)

    @property
    def _own(self) -> str:
        return self.name.rpartition(".")[2]

    def _holder(self) -> Storing:
        holder = self.layer.get_submodule(self.name.rpartition(".")[0])
        assert isinstance(holder, Storing)
        return holder


def matrices_of(layer: nn.Module) -> Iterator[Matrix]:
    """Go through the matrices and factors of a layer and of those inside of it, a shared one once."""
    for part in layer.modules():
        if isinstance(part, StructuredLayer):
            for name, tensor in part.spec.own_tensors.items():
                if len(tensor.shape) > 1:
                    yield Matrix(part, name)


def quantized_tensors(model: nn.Module) -> Iterator[QuantizedTensor]:
    """Go through the tensors of a model that lie on grids, a shared one once."""
    return (module for module in model.modules() if isinstance(module, QuantizedTensor))


def rounded_inputs(model: nn.Module) -> Iterator[RoundedInputs]:
    """Go through what rounds inputs of a model's layers."""
    return (module for module in model.modules() if isinstance(module, RoundedInputs))


@contextmanager
def unrounded(model: nn.Module) -> Iterator[None]:
    """Let inputs pass unrounded, so that outputs hardly change with the order of sums; a grid makes steps of that."""
    parts = [part for part in rounded_inputs(model) if not part.idle]
    for part in parts:
        part.idle = True
    try:
        yield
    finally:
        for part in parts:
            part.idle = False


def grids_of(model: nn.Module) -> list[QuantizedTensor | RoundedInputs]:
    """Return all that lies on grids in a model."""
    return [*quantized_tensors(model), *rounded_inputs(model)]


def is_learning(model: nn.Module) -> bool:
    """Say whether a tensor or a range of a model learns."""
    return any(part.learning for part in grids_of(model))


def pack(model: nn.Module) -> None:
    """Let all tensors and ranges of a model learn no more, and keep the codes alone."""
    for part in grids_of(model):
        part.pack()


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """Keep the codes of a model alone inside of the context, as they are stored; what learns goes on after it."""
    with ExitStack() as held:
        for part in grids_of(model):
            held.enter_context(part.packed_for_now())
        yield
