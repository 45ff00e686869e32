"""Tokens per second of the trainings of the Short Study, by turns, each in a process of its own.

    python -m benchmarks.short_study_speed [--rounds 3]

The students are SmolLM2-135M at 95.6 M parameters, in the shapes of experiments/short-study-arms.yaml, trained as its
arms are: with 19 of 30 blocks in every way, in other shapes on text and in our way. Ratios are to text alone.
"""

from __future__ import annotations

import statistics
import tempfile
from itertools import pairwise
from pathlib import Path

from benchmarks import alternating, experiment
from benchmarks.experiment import workbench
from benchmarks.short_study import recipe_of, training_of
from kronpress.data import read_text
from kronpress.memory import keep_freed_memory, peak_rss_bytes
from kronpress.precision import choose, computing_in
from kronpress.train import read_log

_ARMS = experiment.table("short-study-arms")
_STEPS, _TOKENS_PER_STEP = 6, 1024
_FIRST, *_OTHERS = _ARMS["shapes"]
NAMES = [
    *(f"{_FIRST}, {training}" for training in _ARMS["trainings"]),
    *(f"{shape}, {training}" for shape in _OTHERS for training in ("text", "ours")),
]


def measure(name: str) -> dict[str, float]:
    """Train for a few steps; return tokens per second by the median step without the first, and the peak memory."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        work = workbench(_ARMS["model"], read_text("bundled:python-reference").text, Path(folder))
        shape, training = name.split(", ")
        fields = {**training_of(training), "tokens": _STEPS * _TOKENS_PER_STEP, "log_every": 1}
        fields.pop("teacher", None)  # it is the dense model of the workbench
        *shaping, train = recipe_of(_ARMS["model"], [*_ARMS["shapes"][shape], fields]).steps
        for step in shaping:
            step.run(work)
        with computing_in(choose(_ARMS["precision"], work.student.device)):
            train.run(work)
        ends = [line["seconds"] for line in read_log(work.folder / "train.jsonl")]
    seconds = [end - start for start, end in pairwise(ends)]
    return {"speed": _TOKENS_PER_STEP / statistics.median(seconds), "memory": peak_rss_bytes()}


def main() -> None:
    """Print the table, or one measurement."""
    title = "training of 95.6 M parameters"
    module = "benchmarks.short_study_speed"
    alternating.main(measure, module=module, names=NAMES, doc=__doc__, unit="tokens/s", title=title)


if __name__ == "__main__":
    main()
