"""Text that a model writes, for the reader who trusts no single number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from kronpress.bars import Bar
from kronpress.data import beginning, require_known
from kronpress.errors import KronpressError
from kronpress.evaluate.model_checks import evaluating, require_causal
from kronpress.families import position_limit

_NEW_TOKENS = 40


def generate_samples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int | None = None,
) -> list[str]:
    """Return what the model writes greedily after each prompt, without the prompt.

    The prompts run one by one, so no padding token is needed. By default 40 tokens are written, or as many as the model
    has room for.

    Raises:
        KronpressError: where the model is no decoder, or a prompt is empty or leaves no room for the new tokens.
    """
    require_causal(model, what="writing samples")
    with evaluating(model):
        bar = Bar(prompts, desc="samples", unit="prompt")
        return [_continue(model, tokenizer, prompt, max_new_tokens) for prompt in bar]


def _continue(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, max_new_tokens: int | None
) -> str:
    ids = _prompt_ids(model, tokenizer, prompt, max_new_tokens or 1).to(model.device)
    generate: Any = model.generate
    room = (position_limit(model) or ids.shape[1] + _NEW_TOKENS) - ids.shape[1]
    config = _greedy(model, tokenizer, max_new_tokens or min(_NEW_TOKENS, room))
    output = generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return str(tokenizer.decode(output[0, ids.shape[1] :].tolist(), skip_special_tokens=True))


def _prompt_ids(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, max_new_tokens: int
) -> Int[Tensor, "1 tokens"]:
    tokens, first = tokenizer(prompt, verbose=False)["input_ids"], beginning(tokenizer, model=model)
    begun = first is None or tokens[:1] == [first]
    ids = torch.tensor([tokens if begun else [first, *tokens]], dtype=torch.long)
    require_known(ids, tokenizer, model=model)
    limit, count = position_limit(model), ids.shape[1]
    if count == 0:
        raise KronpressError(f"the prompt '{prompt}' has no tokens; write at least one word")
    if limit is not None and count + max_new_tokens > limit:
        raise KronpressError(
            f"the prompt '{prompt[:40]}' has {count} tokens, and {max_new_tokens} more outgrow the {limit} positions "
            f"of {type(model).__name__}; shorten it or lower max_new_tokens"
        )
    return ids


def _greedy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> GenerationConfig:
    own = model.generation_config.eos_token_id
    end = tokenizer.eos_token_id if own is None else own
    if not all(isinstance(id_, int | None) for id_ in (end if isinstance(end, list) else [end])):
        raise KronpressError(
            f"eos_token_id is {end!r:.60}, not a token id or a list of them; mend generation_config.json"
        )
    last = end[0] if isinstance(end, list) and end else end
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else last
    return GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=end, pad_token_id=0 if pad is None else pad
    )
