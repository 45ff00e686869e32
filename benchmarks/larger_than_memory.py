"""Compress a large random Llama whose blocks stay in files, and watch how much memory that takes.

    python -m benchmarks.larger_than_memory --folder runs/large                       # the shape of Llama-3.2-3B
    python -m benchmarks.larger_than_memory --folder runs/small --layers 2 --tokens 2048 --override 0.keep=0.25

The model is written into the folder shard by shard, and stays there. The run is a process of `kronpress run`, whose
anonymous memory is looked at a hundred times a second; one that was interrupted goes on. Anonymous memory is what only
swapping could free: pages of mapped files are not in it. The results go to benchmarks/results/larger-than-memory.json,
under the name of the folder.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.measured import kept
from kronpress.checkpoint import load_with_tokenizer
from kronpress.checkpoint.files import write_json, write_text

RESULTS = Path(__file__).parent / "results" / "larger-than-memory.json"
SHARD_BYTES = 10**9
STREAMS = {"prune": 2, "factorize": 1}  # of hidden states, in float32
STEPS = {
    "prune": "{{step: prune, fit: {{tokens: {tokens}, window: {window}}}}}",
    "factorize": "{{step: factorize, form: low_rank, fit: {{name: whitened, tokens: {tokens}, window: {window}}}}}",
}
RECIPE = "model: {model}\nmemory: blocks\nsteps:\n- {step}\n"
SHAPE = {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


@dataclass
class Watched:
    """What was seen of a process.

    Attributes:
        anonymous: the most bytes of anonymous memory.
        resident: the most bytes of all memory, mapped files included.
        finished: when each block was, in seconds of the clock.
    """

    anonymous: int = 0
    resident: int = 0
    finished: dict[str, float] = field(default_factory=dict)

    def look(self, process: int, blocks: Path) -> None:
        """Look at the process once."""
        for name, size in _memory(process):
            if name == "RssAnon":
                self.anonymous = max(self.anonymous, size)
            if name == "VmHWM":
                self.resident = size
        for path in blocks.glob("block-*.safetensors"):
            self.finished.setdefault(path.name, time.perf_counter())

    def seconds_per_block(self) -> float | None:
        """Return the median time from one block to the next."""
        times = sorted(self.finished.values())
        between = [later - earlier for earlier, later in itertools.pairwise(times)]
        return round(statistics.median(between), 2) if between else None


def main(arguments: list[str] | None = None) -> None:
    """Write the model where it is missing, compress it, and keep what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the model and the run")
    parser.add_argument("--step", choices=STEPS, default="prune", help="how it is compressed")
    parser.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"], help="blocks of the model")
    parser.add_argument("--hidden", type=int, default=SHAPE["hidden_size"], help="its width, a multiple of 128")
    parser.add_argument("--tokens", type=int, default=8192, help="of the calibration text")
    parser.add_argument("--window", type=int, default=512, help="tokens per window")
    parser.add_argument("--override", action="append", default=[], help="other overrides of the recipe, KEY=VALUE")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the results")
    given = parser.parse_args(arguments)
    config = shaped(given.hidden, layers=given.layers)
    write_model(given.folder / "model", config)
    print(kept(given.out, given.folder.name, lambda: compressed(given, config)))


def shaped(hidden: int, *, layers: int) -> LlamaConfig:
    """Return the config of a model of some width and depth, otherwise in the proportions of Llama-3.2-3B."""
    part = hidden / SHAPE["hidden_size"]
    narrow = {name: round(SHAPE[name] * part) for name in ("intermediate_size", "num_attention_heads")}
    groups = {"num_key_value_heads": narrow["num_attention_heads"] // 3, "hidden_size": hidden}
    fields = SHAPE | narrow | groups | {"num_hidden_layers": layers}
    return LlamaConfig(**fields, tie_word_embeddings=True, dtype="bfloat16", head_dim=128)


def write_model(folder: Path, config: LlamaConfig) -> None:
    """Write a model with random weights in bfloat16, a shard at a time, beside SmolLM2's tokenizer."""
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in LlamaForCausalLM(config).state_dict().items()}
    shapes.pop("lm_head.weight")
    files: dict[str, str] = {}
    for number, names in enumerate(shards(shapes)):
        file = f"model-{number:05}.safetensors"
        save_file({name: random_tensor(shapes[name]) for name in names}, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(names, file)
    size = 2 * sum(shape.numel() for shape in shapes.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": files})
    load_with_tokenizer("bundled:smollm2-135m")[1].save_pretrained(folder)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)


def shards(shapes: dict[str, torch.Size]) -> Iterator[list[str]]:
    """Yield the names of the tensors of each file."""
    names, size = list[str](), 0
    for name, shape in shapes.items():
        names.append(name)
        size += 2 * shape.numel()
        if size >= SHARD_BYTES:
            yield names
            names, size = [], 0
    if names:
        yield names


def random_tensor(shape: torch.Size) -> torch.Tensor:
    """Return a matrix of small random numbers, or the ones of a norm."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02)


def compressed(given: argparse.Namespace, config: LlamaConfig) -> dict[str, object]:
    """Run the recipe in a process of its own, and return what it took."""
    recipe, run = given.folder / "recipe.yaml", given.folder / "run"
    step = STEPS[given.step].format(tokens=given.tokens, window=given.window)
    write_text(recipe, RECIPE.format(model=given.folder / "model", step=step))
    command = [sys.executable, "-m", "kronpress", "run", str(recipe), "--out", str(run), "--resume"]
    started, watched = time.perf_counter(), Watched()
    process = subprocess.Popen([*command, *(part for text in given.override for part in ("--override", text))])
    while process.poll() is None:
        watched.look(process.pid, run / "steps" / f"00-{given.step}" / "trainer")
        time.sleep(0.01)
    if process.returncode:
        raise SystemExit(f"the run ended with status {process.returncode}; the same command goes on with it")
    streams = STREAMS[given.step] * given.tokens * config.hidden_size * 4
    return {
        "step": given.step,
        "hidden": config.hidden_size,
        "layers": config.num_hidden_layers,
        "model_bytes": sum(path.stat().st_size for path in (given.folder / "model").glob("*.safetensors")),
        "tokens": given.tokens,
        "streams_bytes": streams,
        "peak_anonymous_bytes": watched.anonymous,
        "beyond_streams_bytes": watched.anonymous - streams,
        "peak_resident_bytes": watched.resident,
        "seconds_per_block": watched.seconds_per_block(),
        "seconds": round(time.perf_counter() - started, 1),
        "overrides": given.override,
    }


def _memory(process: int) -> Iterator[tuple[str, int]]:
    """Yield what Linux says of the memory of a process, in bytes; nothing once it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            yield name, 1024 * int(value.split()[0])


if __name__ == "__main__":
    main()
