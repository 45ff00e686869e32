"""One block on its way to give what it gives in the dense model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

Block = Callable[[Float[Tensor, "windows tokens dim"]], Float[Tensor, "windows tokens dim"]]


@dataclass(frozen=True)
class Pairs:
    """What enters a block of the student and what leaves that of the dense model, by batches.

    Attributes:
        entering: per batch.
        wanted: per batch.
        judged: how many batches, the last ones, are not trained on.
    """

    entering: Sequence[Float[Tensor, "windows tokens dim"]]
    wanted: Sequence[Float[Tensor, "windows tokens dim"]]
    judged: int

    @property
    def trained(self) -> int:
        """How many batches are trained on."""
        return len(self.entering) - self.judged

    def error(self, block: Block) -> float:
        """Return the mean relative error over the batches that are not trained on."""
        places = range(self.trained, len(self.entering))
        with torch.no_grad():
            errors = [relative_error(block(self.entering[place]), self.wanted[place]) for place in places]
        return float(torch.stack(errors).mean())


def relative_error(
    given: Float[Tensor, "windows tokens dim"], wanted: Float[Tensor, "windows tokens dim"]
) -> Float[Tensor, ""]:
    """Return the mean over tokens of ‖ŷ − y‖² / ‖y‖².

    It is relative for every token, because the residual stream of a first token is a hundred times as large as others.
    """
    missed = (given.float() - wanted).square().sum(dim=-1)
    return (missed / wanted.square().sum(dim=-1).clamp_min(1e-12)).mean()


@dataclass(frozen=True)
class Schedule:
    """How a block is trained: AdamW without weight decay, its rate falling to 0 along a cosine.

    Attributes:
        epochs: passes over the batches.
        learning_rate: at first.
    """

    epochs: int
    learning_rate: float


def train_block(module: nn.Module, block: Block, pairs: Pairs, *, schedule: Schedule, seed: int) -> tuple[float, float]:
    """Train the parameters of a block; return its errors before and after, on batches that are not trained on.

    The parameters are those after the epoch with the lowest error, or the first ones if none lowers it.
    """
    before = lowest = pairs.error(block)
    best = copy.deepcopy(module.state_dict())
    for _ in _epochs(module, block, pairs, schedule=schedule, seed=seed):
        error = pairs.error(block)
        if error < lowest:
            lowest, best = error, copy.deepcopy(module.state_dict())
    module.load_state_dict(best)
    return before, lowest


def _epochs(module: nn.Module, block: Block, pairs: Pairs, *, schedule: Schedule, seed: int) -> Iterator[None]:
    """Train, and stop after each epoch."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=schedule.learning_rate, weight_decay=0.0)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.epochs * pairs.trained)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(schedule.epochs):
        for place in torch.randperm(pairs.trained, generator=generator).tolist():
            relative_error(block(pairs.entering[place]), pairs.wanted[place]).backward()
            optimizer.step()
            optimizer.zero_grad()
            rate.step()
        yield
