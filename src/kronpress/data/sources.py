"""What the name of a text stands for: files, a text that ships with Python, or a data set on the hub."""

from __future__ import annotations

import glob
import importlib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from kronpress.data.files import neighbors, user_path
from kronpress.data.formats import ENDINGS, is_text, joined
from kronpress.data.hub import HUB
from kronpress.errors import KronpressError, did_you_mean, shown

BUNDLED = "bundled:"
"""What sources begin with that ship with Python."""

NO_NAME = "a text source has no name; name a file, a folder or 'bundled:python-reference'"

_PATTERN = set("*?[")


def source_parts(source: str, *, folder: Path) -> list[str]:
    """Return the sources that are named with commas between them; a path that has a comma in it is one."""
    if source.strip() and _exists(source, folder):
        return [source]
    return [part.strip() for part in source.split(",")]


def _exists(source: str, folder: Path) -> bool:
    try:
        return (folder / user_path(source)).exists()
    except KronpressError:  # several sources may be no path together
        return False


def source_files(source: str) -> list[Path]:
    """Return the files that a source names, in their order; what is on the hub or bundled has none.

    Raises:
        KronpressError: a file is missing, or a part of the source has no name.
    """
    return [path for part in source_paths(source) for path in text_files(part)]


def source_paths(source: str) -> list[Path]:
    """Return the files, folders and patterns that a source names on this machine, as they are named.

    Raises:
        KronpressError: a part of the source has no name, or one that no path has.
    """
    parts = source_parts(source, folder=Path())
    if "" in parts:
        raise KronpressError(NO_NAME)
    return [user_path(part) for part in parts if not part.startswith((HUB, BUNDLED))]


def text_files(path: Path) -> list[Path]:
    """Return the file, the files of text below a folder, or those that match a pattern, in the order of their paths.

    Raises:
        KronpressError: there is none.
    """
    if path.is_dir():
        return _files_below(path)
    if is_pattern(path):
        return _files_that_match(path)
    if not path.is_file():
        remedy = "name a file, a folder or 'bundled:python-reference'"
        raise KronpressError(
            f"there is no text at '{path}': {neighbors(path, suffixes=(*ENDINGS, '.gz'), remedy=remedy)}"
        )
    return [path]


def is_pattern(path: Path) -> bool:
    """Say whether a path stands for the files that match it."""
    return bool(_PATTERN & set(path.name)) and not path.exists()


def in_reach(pattern: Path, folder: Path) -> Callable[[str], bool]:
    """Return what says of the name of a file in a folder whether a pattern matches it; neither need be there."""
    *above, last = pattern.resolve().parts
    parts = folder.resolve().parts
    if len(parts) != len(above) or not all(map(_matches, parts, above)):
        return lambda _: False
    return lambda name: _matches(name, last)


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) and (not name.startswith(".") or pattern.startswith("."))


def _files_below(folder: Path) -> list[Path]:
    paths = [path for path in folder.rglob("*") if is_text(path)]
    if not paths:
        raise KronpressError(f"the folder '{folder}' holds no {', '.join(ENDINGS)} file; name another folder")
    return sorted(paths, key=lambda path: path.relative_to(folder).as_posix())


def _files_that_match(pattern: Path) -> list[Path]:
    paths = [path for path in map(Path, glob.glob(str(pattern))) if is_text(path)]
    if not paths:
        raise KronpressError(f"no {', '.join(ENDINGS)} file matches {shown(str(pattern))}; mend the pattern")
    return sorted(paths, key=lambda path: path.as_posix())


def bundled_text(source: str) -> str:
    """Return the text that `bundled:NAME` names.

    Raises:
        KronpressError: there is none of that name.
    """
    name = source.removeprefix(BUNDLED)
    if name not in _BUNDLED:
        raise KronpressError(f"unknown bundled text '{name}': {did_you_mean(name, _BUNDLED)}")
    return _BUNDLED[name]()


def _python_reference() -> str:
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise KronpressError("this Python ships without its language reference; name a text file instead") from None
    return "".join(joined([topics[topic]] for topic in sorted(topics)))


_BUNDLED: dict[str, Callable[[], str]] = {"python-reference": _python_reference}
