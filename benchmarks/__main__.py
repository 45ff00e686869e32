"""Run the benchmark that needs no data: `python -m benchmarks`."""

from benchmarks.layers import main

main()
