"""Compare starts and losses at equal parameters and equal tokens, on SmolLM2-135M with half of its feed-forward blocks.

    python -m benchmarks.distillation --data DIR --elsewhere novel.txt --out runs/distillation --tokens 250000 starts
    python -m benchmarks.distillation --data DIR --elsewhere novel.txt --out runs/distillation --tokens 61440 losses

DIR holds WikiText-2's train.txt and valid.txt. Training reads the first nine tenths of train.txt; losses are chosen on
the last (dev); valid.txt and the other text are only reported. A run that is done is not done again, one that was
interrupted goes on.
"""

from __future__ import annotations

import argparse
import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from kronpress.checkpoint import load, load_with_tokenizer, save
from kronpress.checkpoint.files import read_json, write_json
from kronpress.data import Corpus, read_text
from kronpress.distill import Distill
from kronpress.evaluate import PROTOCOLS
from kronpress.factorize import Factorize
from kronpress.memory import keep_freed_memory
from kronpress.precision import mixed_precision
from kronpress.step import Workbench

MODEL = "bundled:smollm2-135m"
HALF = {"sites": "feed_forward"}
BOTH = {"logits": 0.5, "cross_entropy": 0.5}


def factorize(**fields: Any) -> Callable[[Workbench], None]:
    """Return what makes a start by a factorize step."""
    return lambda work: Factorize(**HALF, **fields).run(work) and None


def truncate(work: Workbench, *, keep: int = 19) -> None:
    """Keep blocks evenly spread from the first to the last: the nearest whole number of blocks to the same size."""
    model = work.student
    blocks = model.get_submodule("model.layers")
    chosen = torch.linspace(0, len(list(blocks)) - 1, keep).round().long().tolist()
    kept = [blocks.get_submodule(str(index)) for index in chosen]
    for index, block in enumerate(kept):
        block.get_submodule("self_attn").layer_idx = index  # type: ignore[assignment]
    model.get_submodule("model").layers = nn.ModuleList(kept)
    model.config.num_hidden_layers = keep


STARTS: dict[str, Callable[[Workbench], None]] = {
    "calibrated pruning": factorize(init={"name": "calibrated_pruning", "keep": 0.5}),
    "depth truncation": truncate,
    "whitened SVD": factorize(init="svd_whitened", ratio=0.5),
    "van_loan Kronecker": factorize(init="van_loan", right=(1, 2)),
}
LOSSES: dict[str, dict[str, Any]] = {
    "KL": {"logits": 1.0},
    "cross-entropy": {"cross_entropy": 1.0},
    "KL + cross-entropy": BOTH,
    "KL at temperature 2 + cross-entropy": {**BOTH, "logits": {"weight": 0.5, "temperature": 2.0}},
    "reverse KL + cross-entropy": {**BOTH, "logits": {"weight": 0.5, "divergence": "reverse"}},
    "Jensen–Shannon + cross-entropy": {**BOTH, "logits": {"weight": 1.0, "divergence": "jensen_shannon"}},
    "KL of the top 64 + cross-entropy": {**BOTH, "logits": {"weight": 0.5, "top_k": 64}},
    "KL + cross-entropy, smoothed": {**BOTH, "cross_entropy": {"weight": 0.5, "smoothing": 0.1}},
    "+ embedding": {**BOTH, "embedding": 1.0},
    "+ hidden, MSE": {**BOTH, "hidden": {"weight": 0.01}},
    "+ hidden, relative": {**BOTH, "hidden": {"weight": 1.0, "metric": "relative"}},
    "+ hidden, cosine": {**BOTH, "hidden": {"weight": 1.0, "metric": "cosine"}},
    "+ feed-forward, relative": {**BOTH, "hidden": {"weight": 1.0, "metric": "relative", "of": "feed_forwards"}},
    "+ attention, probabilities": {**BOTH, "attention": {"weight": 1.0, "of": "probabilities"}},
    "+ attention, scores": {**BOTH, "attention": {"weight": 0.1, "of": "scores"}},
    "+ PKD": {**BOTH, "pkd": 1.0},
    "+ MiniLM": {**BOTH, "minilm": 1.0},
    "+ RAIL": {**BOTH, "rail": 1.0},
    "+ directions": {**BOTH, "directions": 1.0},
    "+ contrastive": {**BOTH, "contrastive": 0.1},
}


@dataclass(frozen=True)
class Study:
    """Where texts and results are, and how much to train and measure."""

    data: Path
    elsewhere: Path
    out: Path
    tokens: int
    rate: float
    windows: int

    def row(self, start: str, losses: str) -> dict[str, Any]:
        """Train one student from `start` with `losses`, or read what an earlier call found."""
        folder = self.out / f"{_slug(start)}-{_slug(losses)}-{self.tokens}-{self.rate:g}"
        if not (folder / "row.json").exists():
            write_json(folder / "row.json", self._train(start, losses, folder))
            shutil.rmtree(folder / "trainer", ignore_errors=True)
        found: dict[str, Any] = read_json(folder / "row.json")
        return found

    def _train(self, start: str, losses: str, folder: Path) -> dict[str, Any]:
        work = self._bench(folder)
        work.student = self._start(start, work)
        dense = self._measured(work, work.teacher, "dense")
        before = self._measured(work, work.student, f"start-{_slug(start)}")
        step = Distill(tokens=self.tokens, learning_rate=self.rate, losses=LOSSES[losses], log_every=10)
        report = step.run(work)
        after = self._measure(work, work.student)
        return {
            "start": start,
            "losses": losses,
            "parameters": sum(parameter.numel() for parameter in work.student.parameters()),
            "tokens": report["tokens"],
            "tokens_per_second": report["tokens_per_second"],
            "before": {text: before[text] / dense[text] for text in dense},
            "after": {text: after[text] / dense[text] for text in dense},
        }

    def _bench(self, folder: Path) -> Workbench:
        folder.mkdir(parents=True, exist_ok=True)
        teacher, tokenizer = load_with_tokenizer(MODEL)
        text = read_text(str(self.data / "train.txt")).text
        cut = text.rfind("\n", 0, len(text) * 9 // 10) + 1
        train, dev = Corpus("train", text[:cut]), Corpus("dev", text[cut:])
        torch.manual_seed(0)
        return Workbench(copy.deepcopy(teacher.float()), teacher.float(), tokenizer, train, dev, folder)

    def _start(self, name: str, work: Workbench) -> PreTrainedModel:
        folder = self.out / f"start-{_slug(name)}"
        if not folder.exists():
            STARTS[name](work)
            save(work.student, folder, tokenizer=work.tokenizer)
        return load(folder)

    def _measured(self, work: Workbench, model: PreTrainedModel, name: str) -> dict[str, float]:
        path = self.out / f"{name}-{self.windows}.json"
        if not path.exists():
            write_json(path, self._measure(work, model))
        found: dict[str, float] = read_json(path)
        return found

    def _measure(self, work: Workbench, model: PreTrainedModel) -> dict[str, float]:
        texts = {
            "dev": work.held_out.text,
            "valid": read_text(str(self.data / "valid.txt")).text,
            "elsewhere": read_text(str(self.elsewhere)).text,
        }
        found = {}
        for name, text in texts.items():
            windows = self.windows if name == "valid" else self.windows // 2
            with mixed_precision(model.device):
                result = PROTOCOLS["tokens-512"].measure(model, work.tokenizer, text, name=name, max_windows=windows)
            found[name] = result.perplexity
        return found


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-").lower()


def main() -> None:
    """Run the rows of a table and print it in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["starts", "losses"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--elsewhere", type=Path, required=True, help="a text of another kind")
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"))
    parser.add_argument("--tokens", type=int, default=250_000)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--windows", type=int, default=128, help="of valid.txt; half as many of the other texts")
    parser.add_argument("--only", nargs="*", help="names of starts or losses")
    arguments = vars(parser.parse_args())
    table, only = arguments.pop("table"), arguments.pop("only")
    study = Study(**arguments)
    keep_freed_memory()
    names = only or list(STARTS if table == "starts" else LOSSES)
    pairs = [(name, "KL + cross-entropy") if table == "starts" else ("calibrated pruning", name) for name in names]
    print("| start | losses | parameters | before, valid | after: dev | valid | elsewhere |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for start, losses in pairs:
        row = study.row(start, losses)
        cells = [
            f"{row['before']['valid']:.4g}",
            *(f"{row['after'][text]:.3f}" for text in ("dev", "valid", "elsewhere")),
        ]
        print(f"| {start} | {losses} | {row['parameters'] / 1e6:.1f} M | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
