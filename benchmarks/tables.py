"""Compare token tables of the same size: the nearest for the vocabulary, and the nearest for the tokens of a text.

    python -m benchmarks.tables --text wikitext-2/train.txt --on wikitext-2/valid.txt glue/SST-2/train.tsv

Numbers are ‖E − E'‖² / ‖E‖² over the tokens of the texts in `--on`, E being the rows that a dense table gives them.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch

from benchmarks.tasks import grouped_table
from kronpress.checkpoint import load_with_tokenizer
from kronpress.data import Corpus, read_utf8, tokenize
from kronpress.factorize import Factorize
from kronpress.step import Workbench

STARTS: list[tuple[str, dict[str, Any]]] = [
    *((init, {"init": init, "right": (1, 8)}) for init in ("van_loan", "van_loan_frequency")),
    *((init, {"init": init, "right": (1, 384), "terms": 48}) for init in ("van_loan", "van_loan_frequency")),
    *((init, {"init": init, "right": (1, 384), "terms": 96}) for init in ("van_loan", "van_loan_frequency")),
    ("van_loan_frequency, groups", grouped_table(384, 192, 64, 12)),
]
TOKENS = 100_000  # of each text


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled:minilm-l6")
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="whose tokens are counted")
    parser.add_argument("--on", type=Path, nargs="+", required=True, help="what is measured on")
    arguments = parser.parse_args()
    model, tokenizer = load_with_tokenizer(arguments.model)
    train = Corpus("text", "\n".join(read_utf8(path) for path in arguments.text))
    measured = {path: tokenize(read_utf8(path), tokenizer, limit=TOKENS) for path in arguments.on}
    names = " | ".join(f"{path.parent.name}/{path.name}" for path in measured)
    print(f"| right factor | terms | start | parameters | {names} |")
    print(f"|---|---:|---|---:|{'---:|' * len(measured)}")
    for name, fields in STARTS:
        bench = Workbench(copy.deepcopy(model.float()), model.float(), tokenizer, train, train, Path())
        (report,) = Factorize(**{"sites": "embedding", **fields}).run(bench)["modules"]
        table, dense = bench.student.get_input_embeddings(), model.get_input_embeddings().weight
        with torch.no_grad():
            errors = [float((table(ids) - dense[ids]).norm() / dense[ids].norm()) ** 2 for ids in measured.values()]
        right, terms = "{} × {}".format(*fields["right"]), fields.get("terms", 1)
        cells = " | ".join(f"{error:.3f}" for error in errors)
        print(f"| {right} | {terms} | `{name}` | {report['parameters_after']:,} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
