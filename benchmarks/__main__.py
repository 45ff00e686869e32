"""Run the benchmarks that need no data: `python -m benchmarks`."""

from benchmarks import finetuning, layers, training

layers.main()
training.main()
finetuning.main()
