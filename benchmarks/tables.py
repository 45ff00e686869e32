"""Compare token tables of the same size: the nearest for the vocabulary, and the nearest for the tokens of a text.

    python -m benchmarks.tables --text wikitext-2/train.txt --on wikitext-2/valid.txt glue/SST-2/train.tsv

Numbers are ‖E − E'‖² / ‖E‖² over the tokens of the texts in `--on`, E being the rows that a dense table gives them.
The tables are those of experiments/tables-starts.yaml.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch

from benchmarks import experiment
from kronpress.checkpoint import load_with_tokenizer
from kronpress.data import Corpus, read_utf8, tokenize
from kronpress.step import Workbench

STARTS = experiment.starts(experiment.table("tables-starts"))
TOKENS = 100_000  # of each text


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=experiment.recipe("tables").model)
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="whose tokens are counted")
    parser.add_argument("--on", type=Path, nargs="+", required=True, help="what is measured on")
    arguments = parser.parse_args()
    model, tokenizer = load_with_tokenizer(arguments.model)
    train = Corpus("text", "\n".join(read_utf8(path) for path in arguments.text))
    measured = {path: tokenize(read_utf8(path), tokenizer, limit=TOKENS) for path in arguments.on}
    names = " | ".join(f"{path.parent.name}/{path.name}" for path in measured)
    print(f"| table | parameters | {names} |")
    print(f"|---|---:|{'---:|' * len(measured)}")
    for name, start in STARTS.items():
        bench = Workbench(copy.deepcopy(model.float()), model.float(), tokenizer, train, train, Path())
        (record,) = experiment.make(experiment.recipe("tables", start), bench)
        (module,) = record.modules
        table, dense = bench.student.get_input_embeddings(), model.get_input_embeddings().weight
        with torch.no_grad():
            errors = [float((table(ids) - dense[ids]).norm() / dense[ids].norm()) ** 2 for ids in measured.values()]
        cells = " | ".join(f"{error:.3f}" for error in errors)
        print(f"| {name} | {module.parameters_after:,} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
