"""How long calibrated steps take beside the two forward passes that they stream, by turns, each in its own process.

    python -m benchmarks.calibration_speed [--rounds 3]

SmolLM2-135M with its first six blocks, 65,536 tokens: the dense and the compressed stream are led through the blocks
and nothing else is done, or hidden neurons are pruned on them, or layers get low rank. Ratios are to the two alone.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks import alternating
from benchmarks.experiment import workbench
from kronpress.activations import BlockStream
from kronpress.data import read_text
from kronpress.factorize import Factorize
from kronpress.memory import keep_freed_memory, peak_rss_bytes
from kronpress.precision import choose, computing_in
from kronpress.prune import Prune
from kronpress.step import Step, Workbench
from kronpress.truncate.blocks import keep_blocks

_TOKENS, _BLOCKS = 65536, 6
_STREAMS = "two forward passes"
_STEPS: dict[str, Step] = {
    "hidden neurons": Prune(keep=0.5, fit={"tokens": _TOKENS}),
    "and values with outputs": Prune(keep=0.5, value_output=0.75, fit={"tokens": _TOKENS}),
    "low rank": Factorize(form="low_rank", fit={"name": "whitened", "tokens": _TOKENS}),
}


def measure(name: str) -> dict[str, float]:
    """Return tokens per second and the peak memory."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        work = workbench("bundled:smollm2-135m", read_text("bundled:python-reference").text, Path(folder))
        keep_blocks(work.student, range(_BLOCKS))
        with computing_in(choose("auto", work.student.device)):
            start = time.perf_counter()
            if name == _STREAMS:
                _stream(work)
            else:
                _STEPS[name].run(work)
            seconds = time.perf_counter() - start
    return {"speed": _TOKENS / seconds, "memory": peak_rss_bytes()}


def _stream(work: Workbench) -> None:
    windows = work.training_windows(size=512, tokens=_TOKENS)
    streams = [BlockStream.begin(work.student, windows) for _ in range(2)]
    for block in range(_BLOCKS):
        for stream in streams:
            stream.advance(work.student, block=block)


def main() -> None:
    """Print the table, or one measurement."""
    names, module = [_STREAMS, *_STEPS], "benchmarks.calibration_speed"
    alternating.main(measure, module=module, names=names, doc=__doc__, unit="tokens/s", title="calibration")


if __name__ == "__main__":
    main()
