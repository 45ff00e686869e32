"""How much is lost on a kind of text that neither calibration nor training saw.

    python -m benchmarks.leave_one_out --out runs/leave-one-out
    python -m benchmarks.leave_one_out my.yaml --texts my-texts.yaml --out runs/mine --only novel

The recipe trains on several kinds of text by their names (data.train), and the set of texts has one of each name to
measure on; by default experiments/leave-one-out.yaml and experiments/general.yaml. The recipe is run once with all
kinds and once without each, every time as it stands otherwise: the kinds that are left share the same number of tokens.
Each run is a folder of its own that an interrupted study goes on from, and what is measured is its finished model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks import experiment
from benchmarks.experiment import slug
from benchmarks.measured import measured, result_file
from kronpress.checkpoint.files import write_json
from kronpress.errors import KronpressError, listed
from kronpress.evaluate import TextSet
from kronpress.memory import keep_freed_memory
from kronpress.records import Record, TextSetComparison, encode, geometric_mean
from kronpress.run import Recipe, read_recipe

ALL = "all"


@dataclass(frozen=True)
class Kind(Record):
    """The ratios to the dense model on one kind: when it was seen, when it was not, and the second over the first."""

    name: str
    seen: float
    unseen: float
    unseen_over_seen: float


@dataclass(frozen=True)
class LeaveOneOut(Record):
    """What leaving out costs on each kind; `general` is that of all kinds seen, and the last a geometric mean."""

    texts: str
    general: float
    kinds: tuple[Kind, ...]
    unseen_over_seen: float


@dataclass(frozen=True)
class Study:
    """A recipe, a set of texts to measure on, and the folder of the runs."""

    recipe: Recipe
    texts: TextSet
    out: Path

    @cached_property
    def kinds(self) -> list[str]:
        """The names of what the recipe trains on.

        Raises:
            KronpressError: it trains on one text, or the set has none of that name to measure on.
        """
        train, measured = self.recipe.data.train, [text.corpus.name for text in self.texts.texts]
        if isinstance(train, str) or len(train) < 2:
            raise KronpressError("the recipe trains on one text; name two or more kinds under data.train")
        missing = sorted(set(train) - set(measured))
        if missing:
            raise KronpressError(
                f"the set of texts {self.texts.name} has none called {listed(missing)} to measure on, but "
                f"{listed(measured)}; give both the same names"
            )
        return list(train)

    def result(self, only: Sequence[str]) -> LeaveOneOut:
        """Run what is not run yet, and compare the kinds of `only` and those that earlier calls left out."""
        unknown = sorted(set(only) - set(self.kinds))
        if unknown:
            raise KronpressError(f"the recipe trains on no {listed(unknown)}; choose of {listed(self.kinds)}")
        seen = self.measured(None)
        kinds = tuple(
            self._kind(name, seen, self.measured(name))
            for name in self.kinds
            if name in only or self._file(name).exists()
        )
        cost = geometric_mean([kind.unseen_over_seen for kind in kinds])
        return LeaveOneOut(self.texts.name, seen.general, kinds, cost)

    def measured(self, kind: str | None) -> TextSetComparison:
        """Run the recipe without a kind, or with all, and measure the model that comes out beside the dense one."""
        _, compared = measured(without(self.recipe, kind), self.texts, folder=self.out / _folder(kind))
        return compared

    def _file(self, kind: str | None) -> Path:
        return result_file(self.out / _folder(kind), self.texts)

    def _kind(self, name: str, seen: TextSetComparison, unseen: TextSetComparison) -> Kind:
        before, after = (_ratio(compared, name) for compared in (seen, unseen))
        return Kind(name, before, after, after / before)


def without(recipe: Recipe, kind: str | None) -> Recipe:
    """Return a recipe that trains on several kinds of text without one of them, or as it is."""
    if kind is None:
        return recipe
    train = recipe.data.train
    assert isinstance(train, dict)
    rest = {name: share for name, share in train.items() if name != kind}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": rest})})


def _folder(kind: str | None) -> str:
    return ALL if kind is None else f"without-{slug(kind)}"


def _ratio(compared: TextSetComparison, kind: str) -> float:
    return next(text.perplexity.ratio for text in compared.texts if text.name == kind)


def table(result: LeaveOneOut) -> str:
    """Return a Markdown table."""
    lines = [f"| {result.texts} | seen | unseen | unseen / seen |", "|---|---:|---:|---:|"]
    for kind in result.kinds:
        lines.append(f"| {kind.name} | {kind.seen:.3f} | {kind.unseen:.3f} | {kind.unseen_over_seen:.3f} |")
    lines.append(f"| geometric mean | {result.general:.3f} (all texts) | | {result.unseen_over_seen:.3f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study, print its table, and write leave-one-out.json into its folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default=experiment.FOLDER / "leave-one-out.yaml")
    parser.add_argument("--texts", type=Path, default=experiment.FOLDER / "general.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs/leave-one-out"))
    parser.add_argument("--only", nargs="+", metavar="KIND", help="leave these out; by default each of all")
    parser.add_argument("--override", "-o", action="append", default=[], help="of the recipe: distill.tokens=50000")
    given = parser.parse_args(arguments)
    keep_freed_memory()
    study = Study(read_recipe(given.recipe, overrides=given.override), TextSet.read(given.texts), given.out)
    result = study.result(given.only or study.kinds)
    write_json(given.out / "leave-one-out.json", encode(result))
    print(table(result))


if __name__ == "__main__":
    main()
