"""The `kronpress` command.

Its exit code is 0 for success, 1 for a mistake that the message explains, and 128 and the number of the signal if it
was interrupted: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
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
_RESUMABLE = {"run": "run", "compress": "run", "truncate": "run", "quantize": "run", "clean": "cleaning"}


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
    with _ending_like_control_c() as arrived:
        try:
            app()
        except BaseException as error:
            code = error.code if isinstance(error, SystemExit) else 1
            if code == 130 or (arrived and code):  # typer's word for Ctrl-C, or what a library made of it
                typer.echo(f"interrupted{_how_to_go_on()}", err=True)
                sys.exit(128 + next(iter(arrived), signal.SIGINT))
            if isinstance(error, KronpressError):
                _fail(str(error))
            if isinstance(error, OSError):  # a full disk, a folder without permission
                _fail(f"{error.strerror or error}: {error.filename or 'a file of this run'}; nothing finished is lost")
            raise


def _how_to_go_on() -> str:
    command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    return f"; the same command with --resume goes on with the {_RESUMABLE[command]}" if command in _RESUMABLE else ""


@contextmanager
def _ending_like_control_c() -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP end the command as Ctrl-C does; a second signal ends the process at once.

    The list that is given takes the number of the signal. A signal that is ignored stays so, as nohup wants.
    """
    arrived: list[int] = []

    def interrupt(number: int, _: object) -> None:
        arrived.append(number)
        for other in before:
            signal.signal(other, signal.SIG_DFL)
        raise KeyboardInterrupt

    ours = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in ours if current_thread() is main_thread()}
    before = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(message: str) -> None:
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(message, err=True)
    sys.exit(1)
