"""Compare the distill step with the naive loop, by turns, each in its own process: `python -m benchmarks.training`.

Both train a student of 94.7M parameters (SmolLM2-135M with narrower feed-forward blocks, random weights) from the
134.5M teacher, four windows of 512 tokens to a step, which the distill step takes by twos. The naive loop is what one
writes first: both models forward under bfloat16 autocast, the log-softmax of all logits in fp32, KL, AdamW. Ratios are
medians over the rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks import alternating
from kronpress.checkpoint import load_with_tokenizer
from kronpress.data import read_text, split_held_out
from kronpress.distill import Distill
from kronpress.memory import keep_freed_memory, peak_rss_bytes
from kronpress.step import Workbench
from kronpress.train import read_log

WINDOW, BATCH, STEPS = 512, 4, 4


def bench(folder: Path) -> Workbench:
    """Load the teacher, and build a student of the shape that halving the feed-forward blocks gives."""
    teacher, tokenizer = load_with_tokenizer("bundled:smollm2-135m")
    config = LlamaConfig.from_dict(teacher.config.to_dict() | {"intermediate_size": 768})
    train, held_out = split_held_out(read_text("bundled:python-reference"))
    torch.manual_seed(0)
    return Workbench(LlamaForCausalLM(config).float(), teacher.float(), tokenizer, train, held_out, folder)


def naive(work: Workbench) -> Iterator[float]:
    """Train and yield the seconds of each step."""
    student, teacher = work.student.train(), work.teacher.requires_grad_(False)
    windows = work.training_windows(size=WINDOW, tokens=BATCH * WINDOW * (STEPS + 1))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
    for ids in windows.split(BATCH)[: STEPS + 1]:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                wanted = logits(teacher, ids)
            given = logits(student, ids)
        ours, theirs = (F.log_softmax(scores.float(), dim=-1).flatten(0, 1) for scores in (given, wanted))
        F.kl_div(ours, theirs, log_target=True, reduction="batchmean").backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield time.perf_counter() - started


def logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of all tokens."""
    scores: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return scores


def ours(work: Workbench, *, compiled: bool = False) -> Iterator[float]:
    """Run the distill step and yield the seconds of each of its steps."""
    keep_freed_memory()  # as every run of a recipe does
    tokens = BATCH * WINDOW * (STEPS + 1)
    Distill(tokens=tokens, window=WINDOW, batch=BATCH, micro_batch=2, log_every=1, compile=compiled).run(work)
    ends = [line["seconds"] for line in read_log(work.folder / "train.jsonl")]
    yield from (end - start for start, end in zip([0.0, *ends], ends, strict=False))


LOOPS: dict[str, Callable[[Workbench], Iterator[float]]] = {
    "naive": naive,
    "distill step": ours,
    "distill step, compiled": lambda work: ours(work, compiled=True),
}


def measure(name: str) -> dict[str, float]:
    """Run a loop here; return its tokens per second without the first step, and the peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        _, *seconds = LOOPS[name](bench(Path(folder)))
    return {"speed": BATCH * WINDOW / statistics.median(seconds), "memory": peak_rss_bytes()}


def main() -> None:
    """Print the table, or one measurement."""
    title = "training, against the naive loop"
    alternating.main(
        measure, module="benchmarks.training", names=list(LOOPS), doc=__doc__, unit="tokens/s", title=title
    )


if __name__ == "__main__":
    main()
