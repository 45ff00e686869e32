"""Compare the finetune step with a loop that pads to 128 tokens, by turns: `python -m benchmarks.finetuning`.

Both fine-tune all-MiniLM-L6-v2 to tell two classes of sentences apart, batches of 32, AdamW; sentences from the Python
language reference, as long as those of SST-2 (three to fifty words). The loop is what one writes first: every text is
padded to 128 tokens; it computes in bf16 where the step does, so that the ratio is that of the batches.
"""

from __future__ import annotations

import itertools
import random
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

from benchmarks import alternating
from kronpress.checkpoint import BUNDLED, load_with_tokenizer
from kronpress.data import read_text, split_held_out
from kronpress.finetune import Finetune
from kronpress.memory import keep_freed_memory, peak_rss_bytes
from kronpress.precision import mixed_precision
from kronpress.step import Workbench

BATCH, STEPS, PADDED = 32, 20, 128
MODEL = "bundled:minilm-l6"


def sentences() -> list[tuple[str, int]]:
    """Return texts and whether they speak of a class, a function or a method."""
    parts = re.split(r"(?<=[.:;])\s+", " ".join(read_text("bundled:python-reference").text.split()))
    chosen = [text for text in parts if 3 <= len(text.split()) <= 50][: BATCH * STEPS]
    random.Random(0).shuffle(chosen)
    return [(text, int(bool(re.search("class|function|method", text)))) for text in chosen]


def padded() -> float:
    """Return the examples per second of the loop that one writes first."""
    _, tokenizer = load_with_tokenizer(MODEL)
    model = AutoModelForSequenceClassification.from_pretrained(BUNDLED["minilm-l6"].find(), num_labels=2)
    model.float().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    examples = sentences()
    started = time.perf_counter()
    for start in range(0, len(examples), BATCH):
        texts, labels = zip(*examples[start : start + BATCH], strict=True)
        inputs = tokenizer(list(texts), padding="max_length", truncation=True, max_length=PADDED, return_tensors="pt")
        with mixed_precision(model.device):
            loss = model(**inputs, labels=torch.tensor(labels)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return len(examples) / (time.perf_counter() - started)


def ours() -> float:
    """Return the examples per second of the step."""
    keep_freed_memory()
    model, tokenizer = load_with_tokenizer(MODEL)
    train, held_out = split_held_out(read_text("bundled:python-reference"))
    examples = sentences()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, some in (("train", examples), ("dev", itertools.islice(examples, 8))):
            lines = [f"{text}\t{label}" for text, label in some]
            (folder / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
        work = Workbench(model.float(), model.float(), tokenizer, train, held_out, folder / "step")
        step = Finetune(tasks="sst-2", data=name, teacher=None, epochs=1, batch=BATCH, max_length=PADDED)
        (row,) = step.run(work).tasks[0].models
    training = row.seeds[0].training
    assert training is not None
    return len(examples) / training.seconds


LOOPS: dict[str, Callable[[], float]] = {"padded to 128": padded, "finetune step": ours}


def measure(name: str) -> dict[str, float]:
    """Run a loop here; return its texts per second and the peak memory."""
    return {"speed": LOOPS[name](), "memory": peak_rss_bytes()}


def main() -> None:
    """Print the table, or one measurement."""
    title = "fine-tuning, against padding"
    alternating.main(
        measure, module="benchmarks.finetuning", names=list(LOOPS), doc=__doc__, unit="texts/s", title=title
    )


if __name__ == "__main__":
    main()
