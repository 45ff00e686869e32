"""What can be gathered of a block while a text streams through it."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.activations.moments import Moments
from kronpress.layers import spec_of


class Statistic(ABC):
    """Something about one block that the walk gathers before the block is changed.

    Attributes:
        turn: statistics of a later turn are gathered once more of the compressed stream, after what was changed at the
            stop of the turn before.
    """

    turn: ClassVar[int] = 0

    @abstractmethod
    def watching(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Hook into the block, which runs on every batch of the text inside of the context."""

    def after_dense(  # noqa: B027  (not every statistic looks at it)
        self, index: int, output: Float[Tensor, "windows tokens dim"]
    ) -> None:
        """Take note of what left the block for a batch of the dense stream."""

    def after_compressed(  # noqa: B027
        self, index: int, output: Float[Tensor, "windows tokens dim"]
    ) -> None:
        """Take note of what left the block for a batch of the compressed stream."""


class InputMoments(Statistic):
    """E[x xᵀ] of the inputs x of one linear layer, in the compressed stream.

    Args:
        path: of the layer.
        layer: what stands there.
    """

    def __init__(self, path: str, *, layer: nn.Module) -> None:
        form = spec_of(layer)
        assert form is not None, f"{path} is no linear layer"
        device = next(itertools.chain(layer.parameters(), layer.buffers())).device
        self.path, self._moments = path, Moments(form.matrix[1], 0, centered=False, device=device)

    @contextmanager
    def watching(self, model: PreTrainedModel) -> Iterator[None]:
        """Look at the inputs of the layer."""

        def observe(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs = args[0].flatten(0, -2)
            self._moments.add(inputs, inputs[:, :0])

        handle = model.get_submodule(self.path).register_forward_pre_hook(observe)
        try:
            yield
        finally:
            handle.remove()

    def second_moment(self) -> Float[Tensor, "n n"]:
        """Return E[x xᵀ] of what was seen, once: see `Moments.normal_equations`."""
        return self._moments.normal_equations()[0]


@contextmanager
def noted_outputs(model: PreTrainedModel, paths: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Give what the layers at some paths put out last, by path, as the model runs inside of the context."""
    noted: dict[str, Tensor] = {}
    with ExitStack() as watched:
        for path in paths:

            def note(_: nn.Module, __: tuple[Tensor, ...], output: Tensor, path: str = path) -> None:
                noted[path] = output

            watched.callback(model.get_submodule(path).register_forward_hook(note).remove)
        yield noted
