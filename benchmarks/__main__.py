"""Run the benchmarks that need no data: `python -m benchmarks`."""

from benchmarks import layers, training

layers.main()
training.main()
