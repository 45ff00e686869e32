"""Run the benchmarks that need no data: `python -m benchmarks`."""

from benchmarks import finetuning, formats, layers, startup, training

startup.main()
formats.main()
layers.main()
training.main()
finetuning.main()
