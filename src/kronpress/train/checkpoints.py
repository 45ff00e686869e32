"""Checkpoints of a training that can be trusted: whole, unchanged, the newest first."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from tqdm import tqdm

from kronpress import processes
from kronpress.checkpoint import files
from kronpress.disk import free_bytes
from kronpress.errors import KronpressError

MARK = "kronpress_complete.json"
_KEPT = 2
_FULL_WORDS = ("No space left", "os error 28", "quota exceeded", "PytorchStreamWriter", "inline_container")


@contextmanager
def saving(folder: Path, *, needed: int) -> Iterator[None]:
    """Let all processes write a checkpoint, then mark it as whole and remove all but the two newest whole ones.

    Args:
        folder: of the checkpoint; what an earlier attempt left in it is removed.
        needed: bytes that it takes.

    Raises:
        KronpressError: the disk is full; earlier checkpoints are as they were, and nothing is left of this one.
    """
    try:
        with processes.together():
            if processes.is_main():
                shutil.rmtree(folder, ignore_errors=True)
                if free_bytes(folder) < needed:
                    raise OSError(errno.ENOSPC, "too little space for a checkpoint", str(folder))
        with processes.together():
            yield
        with processes.together():
            if processes.is_main():
                mark(folder)
                _remove_others(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        if getattr(error, "errno", None) not in files.FULL and not any(words in str(error) for words in _FULL_WORDS):
            raise
        free = free_bytes(folder)
        shutil.rmtree(folder, ignore_errors=True)
        raise KronpressError(
            f"no space for the checkpoint {folder}: it takes about {needed / 1e6:,.1f} MB, and "
            f"{free / 1e6:,.1f} MB are free; free some space, then give the same command with --resume "
            "to go on from the one before"
        ) from error


def mark(folder: Path) -> None:
    """Leave the digest of every file of a checkpoint beside them, which says that it is whole."""
    files.write_json(folder / MARK, {name: files.sha256(folder / name) for name in sorted(_names(folder))})


def fault(folder: Path) -> str | None:
    """Say what is wrong with a checkpoint, if anything is."""
    if not (folder / MARK).exists():
        return "it was not written to its end"
    try:
        digests = dict(files.read_json(folder / MARK))
        unlisted = sorted(_names(folder) - digests.keys())
        if unlisted or not digests:
            return f"{MARK} does not tell of {unlisted[0] if unlisted else 'any file'}"
        for name, digest in digests.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if files.sha256(folder / name) != digest:
                return f"{name} is not as it was written"
    except (OSError, ValueError, TypeError) as error:
        return f"it cannot be read: {error}"
    return None


def _names(folder: Path) -> set[str]:
    """Return the files of a checkpoint, without hidden ones, such as a file browser leaves."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != MARK and path.name[0] != ".")
    return {path.relative_to(folder).as_posix() for path in paths}


def newest_whole(folder: Path) -> Path | None:
    """Return the newest checkpoint of a training that is whole, and print which newer ones are left out and why."""
    checkpoints = _checkpoints(folder)
    for path in checkpoints:
        reason = fault(path)
        if reason is None:
            tqdm.write(f"going on from {path}")
            return path
        tqdm.write(f"warning: {path} is left out: {reason}")
    if checkpoints:
        tqdm.write(f"warning: no checkpoint in {folder} is whole; the training starts over")
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a training, the newest first."""
    checkpoints = [path for path in folder.glob("checkpoint-*") if path.is_dir() and _step(path) >= 0]
    return sorted(checkpoints, key=_step, reverse=True)


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _remove_others(newest: Path) -> None:
    """Keep a checkpoint and the whole one before; newer ones are what a resumed training has left out."""
    checkpoints = _checkpoints(newest.parent)
    kept = [path for path in checkpoints if _step(path) <= _step(newest) and (path / MARK).exists()][:_KEPT]
    for path in checkpoints:
        if path not in kept:
            (path / MARK).unlink(missing_ok=True)  # first, so that what a kill leaves is not taken for whole
            shutil.rmtree(path, ignore_errors=True)
