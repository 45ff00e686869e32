"""Commands that look: inspect and recipes."""

from __future__ import annotations

from typing import Annotated

import typer

from kronpress.cli import work
from kronpress.cli.app import Model, command
from kronpress.shipped import TERMS, shipped


@command()
def recipes() -> None:
    """List the shipped recipes."""
    import yaml
    from rich.console import Console
    from rich.table import Table

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # much the faster, where it was built
    terms = "; ".join(f"model: bundled:{name} comes under {text}" for name, text in TERMS.items())
    table = Table("recipe", "what it does", show_lines=True, caption=terms)
    for name, path in shipped().items():
        table.add_row(name, str(yaml.load(path.read_text(encoding="utf-8"), Loader=loader).get("description", "")))
    Console().print(table)


@command()
def inspect(
    model: Model,
    shapes: Annotated[int, typer.Option(min=1, help="Kronecker shapes to list for each matrix.")] = 6,
) -> None:
    """Show a model's family, its replaceable sites, and what Kronecker factors of them would cost."""
    work.look.inspect(model, shapes=shapes)
