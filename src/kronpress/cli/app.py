"""The `kronpress` command: exit code 0 for success, 1 for a mistake that the message explains, 130 if interrupted."""

from __future__ import annotations

import functools
import logging
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from kronpress import __version__
from kronpress.errors import KronpressError
from kronpress.imports import when_imported


def _with_flags_off(parameters: list[Any]) -> list[Any]:
    """Give typer's own flags a default, such as --help: to read a flag without any, it imports pydantic."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.default is None:
            parameter.default = False
    return parameters


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _with_flags_off(super().get_params(ctx))


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        missing = next((parameter for parameter in self.params if parameter.required), None)
        if missing and not args and not ctx.resilient_parsing:  # as typer does, but before it imports pydantic
            ctx.fail(f"Missing argument '{missing.name}'.")
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        return _with_flags_off(super().get_params(ctx))


app = typer.Typer(
    name="kronpress",
    cls=_Group,
    help="Make pre-trained Transformers smaller and faster, and say honestly what was lost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes and colors would take longer than all the rest of a help page
    context_settings={"max_content_width": 120},
)
command = functools.partial(app.command, cls=_Command)

Model = Annotated[str, typer.Argument(help="A folder, a hub id, a GGUF file or bundled:smollm2-135m.")]


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
        when_imported("transformers", _quieten)


def _quieten() -> None:
    from transformers.utils import logging as transformers_logging

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
            typer.echo("interrupted; the same command with --resume goes on with a run", err=True)
        raise


def _fail(message: str) -> None:
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(message, err=True)
    sys.exit(1)
