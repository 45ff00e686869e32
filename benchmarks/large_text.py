"""Train for a few steps on texts of several sizes: the memory of each run, and how long until its first step.

    python -m benchmarks.large_text --text FOLDER --sizes 20 2000

FOLDER holds texts (.txt), of which files of so many megabytes are made in a temporary folder, their paragraphs in
another order at each repetition. Each run is a process of `kronpress run` with a tiny random Llama, and each text is
trained on twice: the second run finds the tokens in the cache. The results go to benchmarks/results/large-text.json.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from kronpress.cache import VARIABLE
from kronpress.checkpoint import load_with_tokenizer
from kronpress.checkpoint.files import write_json
from kronpress.data import read_text
from kronpress.train import read_log

RESULTS = Path(__file__).parent / "results" / "large-text.json"
STEPS, WINDOW, BATCH = 8, 512, 4
RECIPE = """
model: {model}
data: {{train: {text}}}
steps:
  - {{step: distill, tokens: {tokens}, window: {window}, batch: {batch}, log_every: 1, losses: {{cross_entropy: 1}}}}
"""


@dataclass(frozen=True)
class Result:
    """What a run took: the most memory that its process held, and the seconds until its first step and its end."""

    megabytes: int
    run: str
    peak_memory_bytes: int
    first_step_seconds: float
    seconds: float


def main(arguments: list[str] | None = None) -> None:
    """Run each size twice, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="folder with texts, .txt")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 2000], help="megabytes of the texts")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the results")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="kronpress-") as name:
        folder = Path(name)
        save_model(folder / "model")
        results = []
        for size in given.sizes:
            text = folder / f"{size}.txt"
            write(text, given.text, megabytes=size)
            results += [train(folder, text, megabytes=size, run=run) for run in ("first", "second")]
            text.unlink()
    write_json(given.out, [asdict(result) for result in results])
    Console().print(table(results))


def save_model(folder: Path) -> None:
    """Write a tiny Llama with random weights beside SmolLM2's tokenizer."""
    _, tokenizer = load_with_tokenizer("bundled:smollm2-135m")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write(path: Path, source: Path, *, megabytes: int) -> None:
    """Write a text of so many megabytes: the paragraphs of the source, in another order each time they come."""
    paragraphs = read_text(str(source)).text.split("\n\n")
    order, size = random.Random(0), 0
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        while size < megabytes * 10**6:
            order.shuffle(paragraphs)
            for paragraph in paragraphs:
                size += len(paragraph.encode()) + 2
                stream.write(paragraph + "\n\n")
                if size >= megabytes * 10**6:
                    break


def train(folder: Path, text: Path, *, megabytes: int, run: str) -> Result:
    """Run the recipe in a process of its own."""
    out, recipe = folder / f"{megabytes}-{run}", folder / "recipe.yaml"
    tokens = STEPS * BATCH * WINDOW
    recipe.write_text(RECIPE.format(model=folder / "model", text=text, tokens=tokens, window=WINDOW, batch=BATCH))
    started, log = time.perf_counter(), out / "steps" / "00-distill" / "train.jsonl"
    environment = os.environ | {VARIABLE: str(folder / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-m", "kronpress", "run", str(recipe), "--out", str(out)], env=environment
    )
    first_step, peak = None, 0
    while process.poll() is None:
        if first_step is None and log.exists() and read_log(log):
            first_step = time.perf_counter() - started
        peak = max(peak, peak_memory(process.pid))
        time.sleep(0.02)
    if process.returncode or first_step is None:
        raise SystemExit(f"the run on {text} ended with status {process.returncode}")
    seconds = time.perf_counter() - started
    return Result(megabytes, run, peak, round(first_step, 2), round(seconds, 2))


def peak_memory(process: int) -> int:
    """Return the most bytes of memory that a process on Linux has held; 0 once it has ended.

    What the system says of a child afterwards is at least what its parent held when it was started.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except ProcessLookupError:
        return 0
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def table(results: list[Result]) -> Table:
    """Return the results as a table."""
    rows = Table("text", "run", "peak memory", "seconds to the first step", "seconds", title="training on large texts")
    for result in results:
        memory = f"{result.peak_memory_bytes / 1e6:,.0f} MB"
        rows.add_row(
            f"{result.megabytes:,} MB", result.run, memory, str(result.first_step_seconds), str(result.seconds)
        )
    return rows


if __name__ == "__main__":
    main()
