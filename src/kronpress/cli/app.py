"""The `kronpress` command: exit code 0 for success, 1 for a mistake that the message explains, 130 if interrupted."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from transformers.utils import logging as transformers_logging

from kronpress import __version__
from kronpress.errors import KronpressError

app = typer.Typer(
    name="kronpress",
    help="Make pre-trained Transformers smaller and faster, and say honestly what was lost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_errors = Console(stderr=True)


def _show_version(value: bool) -> bool:
    if value:
        typer.echo(f"kronpress {__version__}")
        raise typer.Exit
    return value


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the libraries below log.")] = False,
) -> None:
    """Options of every command."""
    if not verbose:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        logging.getLogger("transformers").setLevel(logging.ERROR)


def main() -> None:
    """Run the command line; a mistake of the user's gets one paragraph and no traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        app()
    except KronpressError as error:
        _fail(str(error))
    except OSError as error:  # a full disk, a folder without permission
        _fail(f"{error.strerror or error}: {error.filename or 'a file of this run'}; nothing finished is lost")
    except SystemExit as stop:
        if stop.code == 130:  # typer's way to say that Ctrl-C was pressed
            _errors.print("interrupted; the same command with --resume goes on with a run", markup=False)
        raise


def _fail(message: str) -> None:
    _errors.print("[bold red]error:[/bold red] ", end="")
    _errors.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)
