"""The Short Study on SmolLM2-135M: truncation against other ways to the same size, and which training is worth it.

    python -m benchmarks.short_study strategies --lambada FILE --out runs/short-study
    python -m benchmarks.short_study techniques forms cleaning --lambada FILE --out runs/short-study

The tables of experiments/short-study-arms.yaml: every arm is a recipe, and its run a folder of its own. A start is made
once and shared. Measured are `general` (the geometric mean over five kinds of text of the perplexity relative to the
dense model), LAMBADA, tokens, and seconds of training. Printed are the seconds that both cores would need alone, by the
speeds of the table, for the runs may take place beside other work. Rows join benchmarks/results/short-study.json. What
is done is not done again, what was interrupted goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import experiment
from benchmarks.dirtied import texts_of
from benchmarks.experiment import slug
from benchmarks.measured import evaluated, kept
from kronpress.checkpoint import files
from kronpress.evaluate import TextSet
from kronpress.evaluate.measure import Evaluation, LambadaFile
from kronpress.memory import keep_freed_memory
from kronpress.records import EvaluationRecord, TrainingRecord, TruncateRecord
from kronpress.run import Recipe, Run, execute, make_recipe

_TABLE = experiment.table("short-study-arms")
TABLES: dict[str, dict[str, Any]] = _TABLE["tables"]


@dataclass(frozen=True)
class Arm:
    """One trained student; without tokens, it is measured as it begins."""

    start: str
    training: str
    tokens: int
    seed: int = 0
    rate: float = _TABLE["settings"]["learning_rate"]
    text: str = "whole"

    @property
    def name(self) -> str:
        """What tells the arm from others."""
        parts = [self.start, self.training, f"{self.tokens}", f"{self.rate:g}", f"seed {self.seed}"]
        return ", ".join([*parts, *([] if self.text == "whole" else [self.text])])

    def recipe(self, start: str, data: dict[str, Any]) -> Recipe:
        """Return the recipe that trains on from the model of the start."""
        step = {**training_of(self.training), "learning_rate": self.rate, "tokens": self.tokens}
        return recipe_of(start, [step], data=data, seed=self.seed)


def arms(table: str, starts: Sequence[str]) -> Iterator[Arm]:
    """Return the arms of a table with these starts, all of the first seed first."""
    fields = {"seeds": [0], "rates": [None], "texts": ["whole"], **TABLES[table], "starts": starts}
    axes = (fields[name] for name in ("seeds", "starts", "trainings", "tokens", "rates", "texts"))
    for seed, start, training, tokens, rate, text in product(*axes):
        yield Arm(start, training, tokens, seed, rate or rate_of(start), text)


def rate_of(start: str) -> float:
    """Return the learning rate of a start, where the table does not vary it."""
    return float(_TABLE["best"].get(start, Arm.rate))


def training_of(name: str) -> dict[str, Any]:
    """Return the step of a training of the table, which learns from the dense model if its losses compare."""
    losses = _TABLE["trainings"][name]
    how = {"step": "distill", "losses": losses, "teacher": _TABLE["model"]} if losses else {"step": "pretrain"}
    return {**how, **_TABLE["settings"]}


def seconds_of(row: Mapping[str, Any]) -> float | None:
    """Return the seconds of training of a row at the speed of its shape and training, or None where that is unknown."""
    shape = row["start"] if row["start"] in _TABLE["shapes"] else "truncated"
    speed = _TABLE["speeds"].get(f"{shape}, {row.get('training')}")
    return None if speed is None else row["tokens"] / speed


def recipe_of(model: str, steps: Sequence[Any], *, data: dict[str, Any] = _TABLE["data"], seed: int = 0) -> Recipe:
    """Return the recipe of some steps on the study's texts, or on other data."""
    fields = {"model": model, "data": data, "precision": _TABLE["precision"], "seed": seed, "steps": steps}
    return make_recipe(fields)


@dataclass(frozen=True)
class Study:
    """Where runs and results are, and what is measured."""

    out: Path
    result: Path
    evaluation: Evaluation

    def rows(self, table: str, only: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Run the arms of a table, or those of some starts, that are not in the result yet; return a row for each."""
        starts = [start for start in TABLES[table]["starts"] if only is None or start in only]
        for start in starts:
            yield self._row(f"{start}, untrained", partial(self._untrained, start))
        for arm in arms(table, starts):
            yield self._row(arm.name, partial(self._trained, arm))

    def _row(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return {"name": name, **kept(self.result, name, measure)}

    def _begun(self, start: str) -> str:
        """Return the model that an arm begins from."""
        steps = _TABLE["starts"][start]
        if not steps:
            return str(_TABLE["model"])
        run = execute(recipe_of(_TABLE["model"], steps), self.out / f"start-{slug(start)}", resume=True)
        return str(run.checkpoint)

    def _untrained(self, start: str) -> dict[str, Any]:
        steps = _TABLE["starts"][start]
        if not steps:
            return {"start": start, "tokens": 0, "general": 1.0}
        run, record = evaluated(
            recipe_of(_TABLE["model"], steps), self.evaluation, folder=self.out / f"start-{slug(start)}"
        )
        seconds = sum(step.seconds for step in run.manifest().steps)
        made = run.report(0).record
        blocks = {"blocks": list(made.kept)} if isinstance(made, TruncateRecord) else {}
        return {"start": start, "tokens": 0, "seconds of the start": seconds, **blocks, **_measures(run, record)}

    def student(self, arm: Arm, folder: Path) -> Path:
        """Train an arm in a folder, and return its model."""
        return execute(self._recipe(arm), folder, resume=True).checkpoint

    def _recipe(self, arm: Arm) -> Recipe:
        data = {"train": texts_of(_TABLE["data"]["train"], arm.text, self.out / "texts")}
        return arm.recipe(self._begun(arm.start), data)

    def _trained(self, arm: Arm) -> dict[str, Any]:
        folder = self.out / slug(arm.name)
        run, record = evaluated(self._recipe(arm), self.evaluation, folder=folder, dense=_TABLE["model"])
        training = run.report(0).record
        assert isinstance(training, TrainingRecord)
        files.remove(run.checkpoint)  # a study of so many arms would fill the disk
        how = {"seconds": round(training.seconds, 1), "tokens_per_second": training.tokens_per_second}
        return {**asdict(arm), "tokens": training.tokens, **how, **_measures(run, record)}


def _measures(run: Run, record: EvaluationRecord) -> dict[str, Any]:
    size = run.manifest().footprint_after
    assert record.texts is not None and size is not None
    row = {"precision": run.manifest().precision, "parameters": size.parameters, "general": record.texts.general}
    row |= {text.name: text.perplexity.ratio for text in record.texts.texts}
    if record.lambada is not None:
        row |= {
            "lambada accuracy": record.lambada.student.accuracy,
            "lambada accuracy, dense": record.lambada.dense.accuracy,
            "lambada": record.lambada.ratio,
        }
    return row


def main(given: Sequence[str] | None = None) -> None:
    """Run tables and print them in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", choices=list(TABLES))
    parser.add_argument("--starts", nargs="+", choices=list(_TABLE["starts"]), help="of the tables; all by default")
    parser.add_argument("--out", type=Path, default=Path("runs/short-study"))
    parser.add_argument("--texts", type=Path, default=experiment.FOLDER / "general.yaml")
    parser.add_argument("--lambada", help="the passages of LAMBADA, a .jsonl file")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/short-study.json"))
    arguments = parser.parse_args(given)
    keep_freed_memory()
    passages = None if arguments.lambada is None else LambadaFile.read(arguments.lambada, limit=None)
    evaluation = Evaluation(texts=TextSet.read(arguments.texts), lambada=passages)
    study = Study(arguments.out, arguments.json, evaluation)
    for table in arguments.tables:
        print(
            f"\n{table}\n\n| arm | parameters | tokens | seconds | general | LAMBADA |\n|---|---:|---:|---:|---:|---:|"
        )
        for row in study.rows(table, arguments.starts):
            cells = [row.get("parameters", 0) / 1e6, row["tokens"], seconds_of(row) or 0.0, row["general"]]
            shown = f"{cells[0]:.1f} M | {cells[1]:,} | {cells[2]:.0f} | {cells[3]:.3f}"
            print(f"| {row['name']} | {shown} | {row.get('lambada accuracy', 0):.1f} % |", flush=True)


if __name__ == "__main__":
    main()
