"""Check that a checkpoint is, byte by byte, the one that was saved, and answers as it did."""

from __future__ import annotations

from pathlib import Path

from kronpress.checkpoint import files
from kronpress.checkpoint.contents import (
    CONFIG,
    MANIFEST,
    deciding_files,
    require_inside,
    require_regular,
)
from kronpress.checkpoint.load import load
from kronpress.checkpoint.probe import FILE as PROBE_FILE
from kronpress.checkpoint.probe import Probe
from kronpress.errors import KronpressError


def verify(folder: str | Path) -> dict[str, float | int]:
    """Check the hashes of all files that decide a checkpoint's outputs, and its probe.

    Returns:
        The number of files checked and the deviation from the probe in standard deviations.

    Raises:
        KronpressError: something is missing, changed, damaged or was added.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        raise KronpressError(f"{folder} has no {MANIFEST}: it was not written by kronpress, there is nothing to verify")
    require_regular(folder)
    recorded = _recorded_hashes(folder)
    for name, recorded_hash in recorded.items():
        if not (folder / name).is_file():
            raise KronpressError(f"{folder / name} is missing; copy the checkpoint again")
        if files.sha256(folder / name) != recorded_hash:
            raise KronpressError(f"{folder / name} is not the file that was saved (SHA-256 differs); copy it again")
    for name in deciding_files(folder):
        if name not in recorded:
            raise KronpressError(
                f"{folder / name} is not among the files that were saved, and it may change what the model answers; "
                "remove it or copy the checkpoint again"
            )
    probe = Probe.read(folder)
    assert probe is not None
    return {"files": len(recorded), "deviation": probe.check(load(folder, verify=False), place=folder)}


def _recorded_hashes(folder: Path) -> dict[str, str]:
    manifest = folder / MANIFEST
    try:
        recorded = {name: str(facts["sha256"]) for name, facts in files.read_json(manifest)["files"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise KronpressError(f"{manifest} does not list the files of the checkpoint; copy it again") from error
    for name in recorded:
        require_inside(name, place=manifest)
    weights = [name for name in recorded if name.endswith(".safetensors") and name != PROBE_FILE]
    lacking = [name for name in (CONFIG, PROBE_FILE) if name not in recorded] or ([] if weights else ["weights"])
    if lacking:
        raise KronpressError(f"{manifest} does not list the {lacking[0]} of the checkpoint; copy it again")
    return recorded
