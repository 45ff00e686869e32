"""How much faster the student runs than the dense model, measured in one run by turns."""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.bars import Bar
from kronpress.errors import KronpressError
from kronpress.evaluate.model_checks import evaluating
from kronpress.families import is_causal, position_limit, vocabulary_size
from kronpress.records import SpeedComparison, SpeedRow

_PROMPT, _NEW = 256, 32  # tokens, where the models have room for them
Rates = dict[str, float]  # tokens per second by phase


def compare_speed(
    dense: PreTrainedModel,
    student: PreTrainedModel,
    *,
    prompt_tokens: int | None = None,
    new_tokens: int | None = None,
    repeats: int = 5,
    seed: int = 0,
) -> SpeedComparison:
    """Measure both models by turns on the same random prompt, one sequence at a time, after a warm-up of each.

    Prefill reads the prompt as generation does (head on the last token only, where both models can); decode then
    goes on greedily token by token with the key-value cache. Which model goes first changes with every repeat. By
    default the prompt has 256 tokens and 32 are new, or as many as the models have room for.

    Raises:
        KronpressError: where a count is below 1, the text would outgrow a model's positions, or a model is an
            encoder-decoder.
    """
    models = (dense, student)
    room = min(position_limit(model) or _PROMPT + _NEW for model in models)
    new_tokens = max(1, min(_NEW, room // 2)) if new_tokens is None else new_tokens
    prompt_tokens = max(1, min(_PROMPT, room - new_tokens)) if prompt_tokens is None else prompt_tokens
    decode = new_tokens if all(is_causal(model) for model in models) else 0
    for name, value in (("prompt_tokens", prompt_tokens), ("new_tokens", new_tokens), ("repeats", repeats)):
        if value < 1:
            raise KronpressError(f"{name}={value} leaves nothing to time; use 1 or more")
    for model in models:
        _check(model, prompt_tokens + decode)
    prompt = _prompt(min(vocabulary_size(model) for model in models), prompt_tokens, seed)
    options = {"logits_to_keep": 1} if all(_keeps_last(model) for model in models) else {}
    with evaluating(dense), evaluating(student):
        rates = _by_turns(models, lambda model: _rates(model, prompt, new_tokens=decode, options=options), repeats)
    return SpeedComparison(
        rows=tuple(_row(phase, rates) for phase in rates[0][0]),
        prompt_tokens=prompt_tokens,
        new_tokens=decode,
        repeats=repeats,
        threads=torch.get_num_threads(),
        device=str(student.device),
        dense_dtype=_dtype(dense),
        student_dtype=_dtype(student),
    )


def _by_turns(
    models: tuple[PreTrainedModel, PreTrainedModel], measure: Callable[[PreTrainedModel], Rates], repeats: int
) -> list[tuple[Rates, Rates]]:
    """Return (dense, student) rates of each repeat."""
    dense, student = models
    for model in models:
        measure(model)
    pairs = []
    for repeat in Bar(range(repeats), desc="speed", unit="repeat"):
        if repeat % 2:
            second = measure(student)
            pairs.append((measure(dense), second))
        else:
            pairs.append((measure(dense), measure(student)))
    return pairs


def _row(phase: str, pairs: list[tuple[Rates, Rates]]) -> SpeedRow:
    ratios = [student[phase] / dense[phase] for dense, student in pairs]
    return SpeedRow(
        phase=phase,
        dense=statistics.median(dense[phase] for dense, _ in pairs),
        student=statistics.median(student[phase] for _, student in pairs),
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
    )


def _rates(
    model: PreTrainedModel, prompt: Int[Tensor, "1 tokens"], *, new_tokens: int, options: dict[str, Any]
) -> Rates:
    """Time one prefill and, where `new_tokens` is not 0, the decoding after it."""
    ids = prompt.to(model.device)
    if new_tokens:
        options = options | {"use_cache": True}
    start = _now(model)
    output = model(input_ids=ids, **options)
    prefilled = _now(model)
    rates = {"prefill": ids.shape[1] / (prefilled - start)}
    for _ in range(new_tokens):
        token = output.logits[:, -1:].argmax(-1)
        output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
    if new_tokens:
        rates["decode"] = new_tokens / (_now(model) - prefilled)
    return rates


def _now(model: PreTrainedModel) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def _check(model: PreTrainedModel, tokens: int) -> None:
    name, limit = type(model).__name__, position_limit(model)
    if model.config.is_encoder_decoder:
        raise KronpressError(f"speed is measured for decoders and encoders, and {name} is both; use one of its halves")
    if limit is not None and tokens > limit:
        raise KronpressError(f"{tokens} tokens outgrow the {limit} positions of {name}; use fewer prompt or new tokens")


def _prompt(vocabulary: int, tokens: int, seed: int) -> Int[Tensor, "1 tokens"]:
    return torch.randint(vocabulary, (1, tokens), generator=torch.Generator().manual_seed(seed))


def _keeps_last(model: PreTrainedModel) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def _dtype(model: PreTrainedModel) -> str:
    return str(model.dtype).removeprefix("torch.")
