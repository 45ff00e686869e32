"""Trim a vocabulary and say what became of it."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from kronpress import disk
from kronpress.checkpoint import files, save
from kronpress.cli.work.opening import open_model
from kronpress.data import read_text, split_held_out
from kronpress.records import TrimRecord, encode
from kronpress.trim import trim as trim_vocabulary

_CARD = """---
library_name: transformers
tags: [kronpress, model-compression, vocabulary-trimming]
---
# A model with fewer tokens

{kept:,} of {tokens:,} tokens stay: those that `{text}` uses most, and those without which some text could not be read.
What is written in others is cut into smaller pieces. The model has {parameters:,} parameters, and had {before:,}.
"""


def trim(model: str, out: Path, *, data: str, held_out: str | None, keep: int | None, json_file: Path | None) -> None:
    """Trim a model to a text; `out` holds it, with its tokenizer."""
    files.require_empty(out)
    if json_file is not None:
        disk.require_possible(json_file.parent)
    text, last = split_held_out(read_text(data)) if held_out is None else (read_text(data), read_text(held_out))
    opened, tokenizer = open_model(model)
    tokenizer, record = trim_vocabulary(opened, tokenizer, text, held_out=last, keep=keep)
    save(opened, out, tokenizer=tokenizer, card=_card(record))
    _print(record)
    if json_file is not None:
        disk.write_json(json_file, encode(record))
    typer.echo(f"model:  {out}")


def _card(record: TrimRecord) -> str:
    sizes = {"parameters": record.parameters, "before": record.parameters_before}
    return _CARD.format(kept=record.kept, tokens=record.tokens, text=record.text.replace("`", "'"), **sizes)


def _print(record: TrimRecord) -> None:
    table = Table("", "before", "after", "ratio")
    for name, before, after in (
        ("tokens", record.tokens, record.kept),
        ("parameters", record.parameters_before, record.parameters),
        (f"tokens of {record.bytes:,} held-out bytes", record.tokens_before, record.tokens_after),
    ):
        table.add_row(name, f"{before:,}", f"{after:,}", f"{after / before:.3f}×" if before else "–")
    Console().print(table)
    typer.echo(f"{record.used:,} tokens are in the text; {record.compared:,} lines of it are cut as before")
