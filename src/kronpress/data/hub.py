"""Data sets on the hub, through the package datasets."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from itertools import count
from typing import Any

from tqdm import tqdm

from kronpress.data.formats import joined_rows
from kronpress.errors import KronpressError, listed, shown

HUB = "hub:"
"""What sources on the hub begin with."""

_CHARACTERS = 100_000_000  # of a text, some 25 million tokens


def hub_arguments(source: str) -> tuple[str, ...]:
    """Return the data set and, if any, its configuration; nothing where `source` names none.

    Raises:
        KronpressError: more than OWNER/NAME/CONFIGURATION.
    """
    parts = [part for part in source.removeprefix(HUB).split("/") if part]
    if len(parts) > 3:
        raise KronpressError(f"{shown(source)} has {len(parts)} parts; give '{HUB}OWNER/NAME/CONFIGURATION' at most")
    return ("/".join(parts[:2]), *parts[2:]) if parts else ()


def load_from_hub(source: str, arguments: tuple[str, ...], **options: Any) -> Any:
    """Load a data set.

    Raises:
        KronpressError: it can not be loaded, or the package datasets is missing.
    """
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise KronpressError(f"'{source}' needs the package datasets; pip install datasets") from None
    try:
        return datasets.load_dataset(*arguments, **options)
    except Exception as error:  # of many kinds, some from the packages beneath
        raise _unloaded(source, error) from error


def hub_text(source: str) -> str:
    """Return the text of `hub:OWNER/NAME/CONFIGURATION#SPLIT`, as much as is read; the split is `train` by default.

    Raises:
        KronpressError: it can not be loaded, or a row has no text.
    """
    rows = list(_first_rows(source))
    return "".join(joined_rows(lambda: rows))


def hub_records(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Stream the place, for messages, and the record of every row of a data set, named as for `hub_text`.

    Raises:
        KronpressError: it can not be loaded, or a row has no column `text`.
    """
    name, _, split = source.partition("#")
    arguments = hub_arguments(name)
    if not arguments:
        raise KronpressError(f"{shown(source)} names no data set; name one as '{HUB}OWNER/NAME'")
    rows = iter(load_from_hub(source, arguments, split=split or "train", streaming=True))
    for number in count():
        try:
            record = next(rows, None)
        except Exception as error:  # the connection, or a file of the data set
            raise _unloaded(source, error) from error
        if record is None:
            return
        if "text" not in record:
            raise KronpressError(
                f"{source}, row {number}: no column 'text', but {listed(record)}; name another data set"
            )
        yield f"{source}, row {number}", record


def _first_rows(source: str) -> Iterator[tuple[str, Any]]:
    size = 0
    for place, record in hub_records(source):
        if size >= _CHARACTERS:
            tqdm.write(
                f"warning: {source}: the first {size:,} characters are read; to train on more, write it to files with "
                f"`kronpress clean {source} --out FOLDER` and name the folder"
            )
            return
        yield place, record["text"]
        size += len(str(record["text"]))


def _unloaded(source: str, error: Exception) -> KronpressError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return KronpressError(
        f"'{source}' can not be loaded ({reason}); check the name, the configuration, the split and the connection"
    )
