"""Tokens per second of every training of the Short Study, by turns, each in a process of its own.

    python -m benchmarks.short_study_speed [--rounds 3]

The students are SmolLM2-135M with 19 of its 30 blocks, trained as the arms of experiments/short-study-arms.yaml are,
and the dense model on text alone. Ratios are to training on text alone.
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
from kronpress.truncate import Truncate

_ARMS = experiment.table("short-study-arms")
_STEPS, _TOKENS_PER_STEP = 12, 1024
_DENSE = "text, dense"
NAMES = [*_ARMS["trainings"], _DENSE]


def measure(name: str) -> dict[str, float]:
    """Train for a few steps; return tokens per second by the median step without the first, and the peak memory."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        work = workbench(_ARMS["model"], read_text("bundled:python-reference").text, Path(folder))
        if name != _DENSE:
            Truncate(keep=19).run(work)
        fields = {
            **training_of("text" if name == _DENSE else name),
            "tokens": _STEPS * _TOKENS_PER_STEP,
            "log_every": 1,
        }
        (step,) = recipe_of(_ARMS["model"], [{key: value for key, value in fields.items() if key != "teacher"}]).steps
        with computing_in(choose(_ARMS["precision"], work.student.device)):
            step.run(work)
        ends = [line["seconds"] for line in read_log(work.folder / "train.jsonl")]
    seconds = [end - start for start, end in pairwise(ends)]
    return {"speed": _TOKENS_PER_STEP / statistics.median(seconds), "memory": peak_rss_bytes()}


def main() -> None:
    """Print the table, or one measurement."""
    title = "training of 19 of 30 blocks, against text alone"
    module = "benchmarks.short_study_speed"
    alternating.main(measure, module=module, names=NAMES, doc=__doc__, unit="tokens/s", title=title)


if __name__ == "__main__":
    main()
