"""Run the benchmarks that need no data: `python -m benchmarks`."""

from benchmarks import finetuning, layers, startup, training

startup.main()
layers.main()
training.main()
finetuning.main()
