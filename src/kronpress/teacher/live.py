"""A teacher that is run at every step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.activations.head import head_of, narrowed, withheld
from kronpress.activations.trace import Reading, Sizes, Trace, tracing
from kronpress.families import vocabulary_size
from kronpress.layers import grids_of, pack, quantized_tensors
from kronpress.losses import Predictions
from kronpress.precision import computes_in_bfloat16
from kronpress.tasks import outputs_of
from kronpress.teacher.teacher import Offer, PredictionsT, Teacher, model_inputs

Inputs: TypeAlias = Mapping[str, Tensor | None]
Ask: TypeAlias = Callable[[PreTrainedModel, Inputs], PredictionsT]


@dataclass(frozen=True)
class TextHead:
    """What a language model predicts for some tokens before its head has run: the logits of all would be too large.

    Attributes:
        hidden: what enters the head.
        head: makes the logits; None in a model without one, of which only activations are compared.
    """

    hidden: Float[Tensor, "tokens dim"]
    head: nn.Module | None

    def at(self, places: Int[Tensor, " some"] | slice) -> TextHead:
        """Return what enters the head at some tokens."""
        return TextHead(self.hidden[places], self.head)

    def within(self, vocabulary: int) -> Predictions:
        """Run the head, for the first ids alone."""
        assert self.head is not None
        return Predictions(narrowed(self.head, vocabulary)(self.hidden))


class LiveTeacher(Teacher[PredictionsT]):
    """A model that is run at every look, without a gradient.

    Args:
        model: is used as it is, in the mode that it is in.
        ask: runs the model on a batch and returns what it predicts.
        readings: the activations to return.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        ask: Ask[PredictionsT],
        *,
        readings: Collection[Reading] = (),
    ) -> None:
        self.model, self.ask = model, ask
        self.offer = Offer(vocabulary_size(model), frozenset(readings), Sizes.of(model))

    def look(self, batch: Inputs) -> tuple[PredictionsT, Trace]:
        """Run the model."""
        with torch.no_grad():
            return look_at(self.model, self.ask, batch, readings=self.offer.readings)

    @property
    def models(self) -> tuple[PreTrainedModel, ...]:
        """The model."""
        return (self.model,)


def look_at(
    model: PreTrainedModel, ask: Ask[PredictionsT], batch: Inputs, *, readings: Collection[Reading]
) -> tuple[PredictionsT, Trace]:
    """Return what a model, be it student or teacher, predicts for a batch, and its activations."""
    with tracing(model, readings) as trace:
        predictions = ask(model, model_inputs(batch))
    return predictions, trace


def text_live(model: PreTrainedModel, *, readings: Collection[Reading] = ()) -> LiveTeacher[TextHead]:
    """Return a language model as a teacher."""
    return LiveTeacher(model, before_head, readings=readings)


def task_live(model: PreTrainedModel, *, readings: Collection[Reading] = ()) -> LiveTeacher[Tensor]:
    """Return a model with a task's head as a teacher."""
    return LiveTeacher(model, task_outputs, readings=readings)


def before_head(model: PreTrainedModel, inputs: Inputs) -> TextHead:
    """Run a language model up to its head."""
    head, options = head_of(model), {"use_cache": False} if model.can_generate() else {}
    if head is None:
        hidden: Tensor = model.base_model(**inputs, **options).last_hidden_state
    else:
        with withheld(head):
            hidden = model(**inputs, **options).logits
    return TextHead(hidden.flatten(0, 1), head)


def task_outputs(model: PreTrainedModel, inputs: Inputs) -> Float[Tensor, "batch *outputs"]:
    """Run a model with a task's head."""
    return outputs_of(model, {name: value for name, value in inputs.items() if value is not None})


def frozen_copy(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Return a copy of a model to look at while another is trained: its weights in the number format of training.

    Buffers, such as the frequencies of rotary positions, keep their own format. What lies on grids is unpacked.
    """
    dtype = torch.bfloat16 if computes_in_bfloat16(device) else torch.float32
    learned = {id(parameter) for part in grids_of(model) for parameter in part.parameters()}
    frozen = {  # what deepcopy takes for the copies of the parameters
        id(parameter): nn.Parameter(parameter.detach().to(device, dtype), requires_grad=False)
        for parameter in model.parameters()
        if id(parameter) not in learned
    }
    mine: nn.Module = copy.deepcopy(model, frozen).eval()
    mine.to(device)
    pack(mine)
    for tensor in quantized_tensors(mine):
        tensor.give(dtype)
        tensor.unpack()
    assert isinstance(mine, PreTrainedModel)
    return mine
