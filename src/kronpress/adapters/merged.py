"""Adapters that learn in place of a model's own numbers, and are merged into those at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from kronpress.adapters.kinds import Adapters
from kronpress.adapters.package import peft_package
from kronpress.adapters.targets import Target, targets_of
from kronpress.checkpoint.overlooked import unwatched
from kronpress.errors import KronpressError
from kronpress.families import replace_module
from kronpress.layers import stored_numbers
from kronpress.records import AdapterRecord

_NAME = "default"  # peft's, of an adapter that has no other


@contextmanager
def adapted(model: PreTrainedModel, adapters: Adapters, *, seed: int) -> Iterator[AdapterRecord]:
    """Let adapters alone learn inside of the context; at its end they are merged, and the model has the form it had.

    A dense layer gets peft's own layer where the kind computes beside it. Any other weight, and each factor of a
    structured layer, is replaced by its sum with the update, which peft forms. What is smaller than its adapter stays
    as it is.

    Args:
        model: is changed in place.
        adapters: which, and where.
        seed: of the numbers that they begin with.

    Raises:
        KronpressError: peft is not installed, or a layer takes no adapters.
    """
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    numbers = stored_numbers(model)
    targets = targets_of(model, adapters.sites)
    orders = {target.holder: [name for name, _ in target.holder.named_parameters(recurse=False)] for target in targets}
    pairs, left = _pairs(adapters, targets, seed=seed)
    try:
        for parameter in learned:
            parameter.requires_grad_(False)
        for pair in pairs:
            pair.put(model)
        trained = sum(pair.numbers for pair in pairs)
        with unwatched(model):
            yield AdapterRecord(adapters.kind, adapters.rank, trained, numbers, len(pairs), tuple(left))
    finally:
        for pair in pairs:
            pair.merge(model)
        for holder, names in orders.items():
            _put_in_order(holder, names)
        for parameter in learned:
            parameter.requires_grad_(True)


def _put_in_order(holder: nn.Module, names: Sequence[str]) -> None:
    """Let a module have its parameters in this order; sums over all of them, as the gradient's norm, depend on it."""
    for name in names:
        parameter = holder.get_parameter(name)
        delattr(holder, name)
        holder.register_parameter(name, parameter)


def require_adaptable(model: PreTrainedModel, adapters: Adapters) -> None:
    """Check that adapters could be put on a model as it is.

    Raises:
        KronpressError: peft is not installed, or a layer takes no adapters.
    """
    peft_package()
    targets_of(model, adapters.sites)


@dataclass(frozen=True)
class _Pair:
    """A weight or factor with its adapter, a layer of peft."""

    target: Target
    adapter: Any
    beside: bool

    @property
    def numbers(self) -> int:
        return sum(parameter.numel() for parameter in self.adapter.parameters() if parameter.requires_grad)

    def put(self, model: PreTrainedModel) -> None:
        """Let the adapter take part in what the model computes."""
        if self.beside:
            assert self.target.layer is not None
            self.adapter.base_layer = self.target.holder
            replace_module(model, self.target.layer, module=self.adapter)
        else:
            parametrize.register_parametrization(self.target.holder, self.target.name, _Sum(self.target, self.adapter))

    @torch.no_grad()
    def merge(self, model: PreTrainedModel) -> None:
        """Add the update to the numbers, and put everything back where it was; do nothing where it is there."""
        holder, name = self.target.holder, self.target.name
        if parametrize.is_parametrized(holder, name):
            parametrize.remove_parametrizations(holder, name)
        elif self.adapter.base_layer is holder:
            assert self.target.layer is not None
            self.target.tensor.add_(self.target.folded(self.adapter.get_delta_weight(_NAME)))
            replace_module(model, self.target.layer, module=holder)


class _Sum(nn.Module):
    """A tensor plus its update, which peft forms as a matrix."""

    def __init__(self, target: Target, adapter: nn.Module) -> None:
        super().__init__()
        self.folded, self.adapter = target.folded, adapter

    def forward(self, tensor: Tensor) -> Tensor:
        adapter: Any = self.adapter
        with torch.autocast(tensor.device.type, enabled=False):
            return tensor + self.folded(adapter.get_delta_weight(_NAME))


class _StandIn(nn.Linear):
    """A linear layer for peft to look at: of the size of a matrix, and on its device, but without numbers."""

    def __init__(self, target: Target) -> None:
        rows, columns = target.matrix
        super().__init__(columns, rows, bias=False, device="meta")
        self.register_parameter("weight", None)
        self.__dict__["weight"] = target.tensor.new_zeros(()).expand(rows, columns)


def _pairs(adapters: Adapters, targets: Sequence[Target], *, seed: int) -> tuple[list[_Pair], list[str]]:
    """Return the targets with their adapters, and the paths of those that are no larger than an adapter."""
    stand_ins = nn.ModuleList(_StandIn(target) for target in targets)
    stand_ins.register_parameter("device", nn.Parameter(targets[0].tensor.new_empty(0)))  # which peft asks for
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft_package().inject_adapter_in_model(adapters.config(r"\d+"), stand_ins, _NAME)
    pairs, left = [], []
    for target, adapter in zip(targets, stand_ins, strict=True):
        pair = _Pair(target, adapter, beside=adapters.beside and target.layer is not None)
        if pair.numbers < target.tensor.numel():
            pairs.append(pair)
        else:
            left.append(target.path)
    if not pairs:
        raise KronpressError(
            f"no weight or factor of the sites '{adapters.sites}' is larger than its adapter of rank {adapters.rank}; "
            "choose a smaller rank, or train without adapters"
        )
    return pairs, left
