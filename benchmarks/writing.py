"""Whether a compressed model writes sensibly: what it writes greedily, how often it repeats itself, and what the dense
model thinks of it.

    python -m benchmarks.writing runs/demo/checkpoint
    python -m benchmarks.writing small --dense MODEL --prompt "The sea was" --tokens 200

By default 100 tokens after each prompt of the demo. `repeated` is the share of 4-grams of tokens that the same text has
had before. `perplexity` is that of the dense model on the text, given the prompt; `ratio` is to what it has on its own.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from kronpress.evaluate import Evaluate, generate_samples
from kronpress.memory import keep_freed_memory
from kronpress.run import read_recipe
from kronpress.run.inputs import open_model, ready

_N = 4
_DEMO = read_recipe("demo")


@dataclass(frozen=True)
class Writing:
    """What a model wrote after some prompts; its nats are those of the dense model."""

    texts: tuple[str, ...]
    grams: int
    repeated: int
    tokens: int
    nats: float

    @property
    def repetition(self) -> float:
        """Share of the n-grams that came before in their text."""
        return self.repeated / max(1, self.grams)

    @property
    def perplexity(self) -> float:
        """Of the dense model on the texts."""
        return math.exp(self.nats / self.tokens)


def written(
    model: PreTrainedModel, dense: PreTrainedModel, tokenizer: Any, *, prompts: Sequence[str], tokens: int
) -> Writing:
    """Let a model write, and the dense one judge it."""
    texts = generate_samples(model, tokenizer, prompts, max_new_tokens=tokens)
    grams = repeated = count = 0
    nats = 0.0
    for prompt, text in zip(prompts, texts, strict=True):
        first, ids = (tokenizer(part, return_tensors="pt")["input_ids"] for part in (prompt, prompt + text))
        new = ids[0, first.shape[1] :].tolist()
        seen = [tuple(new[at : at + _N]) for at in range(len(new) - _N + 1)]
        grams, repeated = grams + len(seen), repeated + len(seen) - len(set(seen))
        logits = dense(input_ids=ids.to(dense.device)).logits[0, first.shape[1] - 1 : -1].float()
        nats += float(F.cross_entropy(logits, ids[0, first.shape[1] :].to(logits.device), reduction="sum"))
        count += len(new)
    return Writing(tuple(texts), grams, repeated, count, nats)


def _demo_prompts() -> list[str]:
    steps = [step for step in _DEMO.steps if isinstance(step, Evaluate)]
    return [prompt for step in steps for prompt in step.prompts]


@torch.inference_mode()
def main(given: Sequence[str] | None = None) -> None:
    """Print a table in Markdown, and the texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="model")
    parser.add_argument("--dense", default=_DEMO.model)
    parser.add_argument("--prompt", action="append", help="in place of those of the demo; may be given several times")
    parser.add_argument("--tokens", type=int, default=100)
    arguments = parser.parse_args(given)
    keep_freed_memory()
    prompts = arguments.prompt or _demo_prompts()
    dense, tokenizer = open_model(arguments.dense)
    ready(dense)
    own = written(dense, dense, tokenizer, prompts=prompts, tokens=arguments.tokens)
    rows = {arguments.dense: own}
    for name in arguments.models:
        model = ready(open_model(name)[0])
        rows[name] = written(model, dense, tokenizer, prompts=prompts, tokens=arguments.tokens)
    print("| model | repeated | perplexity | ratio |\n|---|---:|---:|---:|")
    for name, row in rows.items():
        print(f"| {name} | {row.repetition:.1%} | {row.perplexity:.2f} | {row.perplexity / own.perplexity:.2f} |")
    for name, row in rows.items():
        for prompt, text in zip(prompts, row.texts, strict=True):
            print(f"\n{name}: **{prompt}** {text.strip()}")


if __name__ == "__main__":
    main()
