"""Windows to ask a teacher about, and how to see that it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from kronpress.teacher import LiveTeacher, TextHead, live, text_live, text_outputs
from kronpress.train.text import EncoderText, Frame, NextToken
from tests.tiny import tiny_bert, tiny_tokenizer

WINDOW, COUNT = 16, 6


class Killed(BaseException):
    """What stands for the end of the process."""


def text(*, seed: int = 0) -> NextToken:
    windows = torch.randint(256, (COUNT, WINDOW), generator=torch.Generator().manual_seed(seed))
    return NextToken(windows, torch.arange(COUNT))


def masked_text() -> EncoderText:
    return EncoderText(text().windows, torch.arange(COUNT), Frame.of(tiny_bert(), tiny_tokenizer()), seed=0)


@torch.no_grad()
def predictions(teacher: PreTrainedModel, example: Mapping[str, torch.Tensor], temperature: float = 1.0) -> Any:
    """The log-probabilities of all ids, (tokens, vocabulary)."""
    inputs = {name: value[None] for name, value in example.items() if name in ("input_ids", "token_type_ids")}
    return torch.log_softmax(teacher(**inputs).logits[0] / temperature, dim=-1)


def asked(monkeypatch: pytest.MonkeyPatch, *, die_at: int | None = None) -> list[int]:
    """Note how many windows a teacher is asked about at each time, and let the process end at one of them."""
    windows: list[int] = []

    def ask(model: PreTrainedModel, inputs: Any) -> TextHead:
        windows.append(len(inputs["input_ids"]))
        if len(windows) == die_at:
            raise Killed
        return live.before_head(model, inputs)

    def noting(model: PreTrainedModel) -> LiveTeacher[TextHead]:
        teacher = text_live(model)
        teacher.ask = ask
        return teacher

    monkeypatch.setattr(text_outputs, "text_live", noting)
    return windows
