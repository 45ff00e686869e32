"""What holds of the papers' claims: error and quality of every start, shape, permutation and choice of blocks.

    python -m benchmarks.study --data DIR --out runs/study --model bundled:smollm2-135m --windows 8

DIR holds WikiText-2's train.txt and valid.txt. Nothing is trained. A row that is in the output file already is not
measured again, so an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kronpress.checkpoint import load_with_tokenizer
from kronpress.data import read_text
from kronpress.evaluate import Evaluate, footprint
from kronpress.factorize import Factorize
from kronpress.memory import keep_freed_memory
from kronpress.step import Workbench

HALF = {"sites": "feed_forward", "right": [1, 2]}
ACROSS = {"sites": "feed_forward", "right": [2, 1]}
SMALL = {"sites": "feed_forward", "right": [3, 3]}
QUARTER = {"sites": "feed_forward", "right": [4, 2]}


@dataclass(frozen=True)
class Row:
    """One line of the study: a question, what is varied, and the factorize step."""

    question: str
    name: str
    step: dict[str, Any] = field(default_factory=dict)


def _starts() -> list[Row]:
    calibrated = {"name": "calibrated_pruning", "keep": 0.5}
    rows = [Row("start", name, HALF | {"init": name}) for name in ("van_loan", "van_loan_normalized", "pruning")]
    rows += [
        Row("start", "svd", {"sites": "feed_forward", "init": "svd"}),
        Row("start", "tensor_train, rank 64", {"sites": "feed_forward", "init": {"name": "tensor_train", "rank": 64}}),
        Row("start", "calibrated_pruning", {"init": calibrated}),
    ]
    return rows


def _shapes() -> list[Row]:
    shapes = [([1, 2], 1), ([2, 1], 1), ([2, 2], 1), ([2, 2], 2), ([3, 3], 1), ([3, 3], 2), ([3, 3], 4), ([4, 2], 4)]
    shapes += [([4, 1], 1), ([48, 24], 1), ([48, 24], 8)]
    return [
        Row("shape", f"right {right}, {terms} terms", HALF | {"init": "van_loan", "right": right, "terms": terms})
        for right, terms in shapes
    ]


def _blocks() -> list[Row]:
    rows = []
    for name, chosen in (("all", {}), ("without block 0", {"skip_blocks": [0]}), ("odd", {"blocks": "odd"})):
        rows.append(Row("blocks", f"{name}, van_loan", HALF | {"init": "van_loan"} | chosen))
    rows += [Row("blocks", f"only {i}, van_loan", HALF | {"init": "van_loan", "blocks": [i]}) for i in (0, 1, 2, 4)]
    return rows


def _permutations() -> list[Row]:
    shapes = {
        "right 1 × 2": HALF,
        "right 2 × 1": ACROSS,
        "right 3 × 3": SMALL,
        "right 4 × 2, 4 terms": QUARTER | {"terms": 4},
    }
    chosen = {"init": "van_loan", "blocks": [1, 3, 5]}  # a search takes some seconds per block
    return [
        Row("permutation of blocks 1, 3, 5", f"{shape}, {permute}", step | chosen | {"permute": permute})
        for shape, step in shapes.items()
        for permute in ("none", "folded", "all")
    ]


def _normalization() -> list[Row]:
    return [
        Row(
            "normalization",
            f"{name}, {terms} terms, odd blocks",
            SMALL | {"init": name, "terms": terms, "blocks": "odd"},
        )
        for name in ("van_loan", "van_loan_normalized")
        for terms in (1, 2, 4)
    ]


def _embeddings() -> list[Row]:
    table = {"sites": "embedding", "init": "van_loan", "right": [1, 2]}
    rows = [Row("embedding", f"halved, head {head}", table | {"head": head}) for head in ("tied", "dense")]
    rows += [
        Row("embedding", "halved in a searched order, head dense", table | {"head": "dense", "permute": "all"}),
        Row("embedding", "halved twice, head dense", table | {"head": "dense", "levels": 2}),
        Row(
            "embedding",
            "halved twice in searched orders, head dense",
            table | {"head": "dense", "levels": 2, "permute": "all"},
        ),
    ]
    trains = {"name": "tensor_train_rows", "rank": 1}
    rows.append(
        Row(
            "embedding",
            "a tensor train per row, rank 1, head dense",
            {"sites": "embedding", "init": trains, "head": "dense"},
        )
    )
    return rows


ROWS = [*_starts(), *_shapes(), *_blocks(), *_permutations(), *_normalization(), *_embeddings()]


def measure(row: Row, dense: Workbench, *, windows: int) -> dict[str, Any]:
    """Factorize a copy of the dense model and compare it with the original."""
    bench = copy.copy(dense)
    bench.student = copy.deepcopy(dense.teacher)
    modules = Factorize(**row.step).run(bench)["modules"]
    found = Evaluate(max_windows=windows).run(bench)
    errors = [module["relative_error"] for module in modules]
    quality = found["perplexity"][0]["ratio"] if found["perplexity"] else found["fidelity"]["cosine"]
    return {
        "question": row.question,
        "name": row.name,
        "parameters": footprint(bench.student).parameters,
        "error": sum(errors) / len(errors),
        "quality": quality,
    }


def workbench(arguments: argparse.Namespace) -> Workbench:
    """Open the model and the texts."""
    model, tokenizer = load_with_tokenizer(arguments.model)
    train, held_out = (read_text(str(arguments.data / f"{name}.txt")) for name in ("train", "valid"))
    folder = Path(tempfile.mkdtemp())
    return Workbench(model, model, tokenizer, train, held_out, folder, memory=folder / "teacher.json")


def table(rows: list[dict[str, Any]], *, quality: str) -> str:
    """Return a Markdown table."""
    lines = [f"| question | | parameters | relative error | {quality} |", "|---|---|---:|---:|---:|"]
    for row in rows:
        size = f"{row['parameters'] / 1e6:.2f} M"
        lines.append(f"| {row['question']} | {row['name']} | {size} | {row['error']:.4f} | {row['quality']:.4g} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every row that is not in the output file yet, and print them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--model", default="bundled:smollm2-135m")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--only", nargs="*", default=sorted({row.question for row in ROWS}))
    arguments = parser.parse_args()
    keep_freed_memory()
    file = arguments.out / f"{arguments.model.replace(':', '-').replace('/', '-')}-{arguments.windows}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    dense = workbench(arguments)
    for row in ROWS:
        if row.question in arguments.only and not any(
            (d["question"], d["name"]) == (row.question, row.name) for d in done
        ):
            done.append(measure(row, dense, windows=arguments.windows))
            with file.open("a") as stream:
                stream.write(json.dumps(done[-1]) + "\n")
    causal = bool(dense.teacher.can_generate())
    print(table(done, quality="perplexity ratio" if causal else "cosine of the outputs"))


if __name__ == "__main__":
    main()
