"""Compare starts and losses at equal parameters and equal tokens, on SmolLM2-135M with half of its feed-forward blocks.

    python -m benchmarks.distillation starts --data DIR --elsewhere novel.txt --out runs/distillation --tokens 250000
    python -m benchmarks.distillation losses --data DIR --elsewhere novel.txt --out runs/distillation --tokens 61440

The recipe is experiments/distillation.yaml, with the starts and losses of experiments/distillation-arms.yaml. DIR holds
WikiText-2's train.txt and valid.txt. Training reads the first nine tenths of train.txt; losses are chosen on the last
(dev); valid.txt and the other text are only reported. A run that is done is not done again, one that was interrupted
goes on.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from benchmarks import experiment
from benchmarks.experiment import slug, workbench
from kronpress.checkpoint import load, save
from kronpress.checkpoint.files import read_json, write_json
from kronpress.data import Corpus, read_text
from kronpress.distill import Distill
from kronpress.evaluate import PROTOCOLS
from kronpress.memory import keep_freed_memory
from kronpress.precision import mixed_precision
from kronpress.run import Recipe
from kronpress.step import Workbench

_ARMS = experiment.table("distillation-arms")
STARTS = experiment.starts(_ARMS["starts"])
LOSSES: dict[str, dict[str, Any]] = _ARMS["losses"]
START, LOSS = "calibrated pruning", "KL + cross-entropy"  # those of the recipe


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
        folder = self.out / f"{slug(start)}-{slug(losses)}-{self.tokens}-{self.rate:g}"
        if not (folder / "row.json").exists():
            write_json(folder / "row.json", self._train(start, losses, folder))
            shutil.rmtree(folder / "trainer", ignore_errors=True)
        row: dict[str, Any] = read_json(folder / "row.json")
        return row

    def _recipe(self, start: str, losses: str) -> Recipe:
        overrides = {"distill.tokens": self.tokens, "distill.learning_rate": self.rate}
        return experiment.recipe("distillation", STARTS[start], overrides={**overrides, **LOSSES[losses]})

    def _train(self, start: str, losses: str, folder: Path) -> dict[str, Any]:
        work = self._bench(folder)
        work.student = self._start(start, work)
        dense = self._measured(work, work.teacher, "dense")
        before = self._measured(work, work.student, f"start-{slug(start)}")
        report = experiment.only(self._recipe(start, losses), Distill).run(work)
        after = self._measure(work, work.student)
        return {
            "start": start,
            "losses": losses,
            "parameters": sum(parameter.numel() for parameter in work.student.parameters()),
            "tokens": report.tokens,
            "tokens_per_second": report.tokens_per_second,
            "before": {text: before[text] / dense[text] for text in dense},
            "after": {text: after[text] / dense[text] for text in dense},
        }

    def _bench(self, folder: Path) -> Workbench:
        folder.mkdir(parents=True, exist_ok=True)
        text = read_text(str(self.data / "train.txt")).text
        cut = text.rfind("\n", 0, len(text) * 9 // 10) + 1
        work = workbench(self._recipe(START, LOSS).model, "", folder)
        return replace(work, train=Corpus("train", text[:cut]), held_out=Corpus("dev", text[cut:]))

    def _start(self, name: str, work: Workbench) -> PreTrainedModel:
        folder = self.out / f"start-{slug(name)}"
        if not folder.exists():
            experiment.make(self._recipe(name, LOSS), work)
            save(work.student, folder, tokenizer=work.tokenizer)
        return load(folder)

    def _measured(self, work: Workbench, model: PreTrainedModel, name: str) -> dict[str, float]:
        path = self.out / f"{name}-{self.windows}.json"
        if not path.exists():
            write_json(path, self._measure(work, model))
        perplexities: dict[str, float] = read_json(path)
        return perplexities

    def _measure(self, work: Workbench, model: PreTrainedModel) -> dict[str, float]:
        texts = {
            "dev": work.held_out.text,
            "valid": read_text(str(self.data / "valid.txt")).text,
            "elsewhere": read_text(str(self.elsewhere)).text,
        }
        perplexities = {}
        for name, text in texts.items():
            windows = self.windows if name == "valid" else self.windows // 2
            with mixed_precision(model.device):
                result = PROTOCOLS["tokens-512"].measure(model, work.tokenizer, text, name=name, max_windows=windows)
            perplexities[name] = result.perplexity
        return perplexities


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
    pairs = [(name, LOSS) if table == "starts" else (START, name) for name in names]
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
