"""Checkpoints that are whole or absent: written aside, synced, listed with their sha256, then renamed into place.

checkpoints/
    step-00000400/    files of the checkpoint, and manifest.json: {"files": {name: sha256}, "run": fingerprint}
    .step-...         being written, or left over by a killed process
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from core.errors import DiskFull, TrainingFailed

MANIFEST = "manifest.json"

_KEPT = 2  # the newest, and one to fall back to
_PREFIX = "step-"


def save_checkpoint(
    folder: Path, step: int, fill: Callable[[Path], None], run: Mapping[str, str] | None = None
) -> Path:
    """Make the checkpoint of `step` from the files that `fill` writes into the empty folder it is given.

    `run` says what the checkpoint belongs to, see trainer.fingerprint.

    Older checkpoints but one are removed afterwards.

    Raises
    ------
    DiskFull, TrainingFailed
        It cannot be written. What was there before is untouched.
    """
    with disk_errors("a checkpoint", folder):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f".{_PREFIX}*"):
            shutil.rmtree(leftover)
        final = folder / f"{_PREFIX}{step:08d}"
        staging = folder / f".{final.name}"
        staging.mkdir()
        try:
            fill(staging)
            _seal(staging, run or {})
            if final.exists():  # the same step again, from an older process that was cut off after it
                shutil.rmtree(final)
            staging.rename(final)
            _sync(folder)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        for old in _steps(folder)[_KEPT:]:
            shutil.rmtree(old)
    return final


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose every file is there with the content its manifest names; None without one."""
    return next((path for path in _steps(folder) if is_whole(path)), None)


def step_of(checkpoint: Path) -> int:
    """The number of optimiser steps a checkpoint was made after."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def run_of(checkpoint: Path) -> dict[str, str]:
    """What a whole checkpoint was said to belong to; empty where nothing was."""
    said: dict[str, str] = json.loads((checkpoint / MANIFEST).read_bytes()).get("run", {})
    return said


def is_whole(checkpoint: Path) -> bool:
    """Whether the files are exactly those of the manifest, with their sha256."""
    try:
        listed = json.loads((checkpoint / MANIFEST).read_bytes())["files"]
        found = {path.name: _sha256(path) for path in checkpoint.iterdir() if path.name != MANIFEST}
    except (OSError, ValueError, KeyError, TypeError):
        return False  # torn: the answer to the question, not a failure
    return bool(listed == found)


@contextmanager
def disk_errors(what: str, folder: Path) -> Iterator[None]:
    """Translate an OSError of writing `what` there into DiskFull or TrainingFailed."""
    try:
        yield
    except OSError as exc:
        kind = DiskFull if exc.errno in (errno.ENOSPC, errno.EDQUOT) else TrainingFailed
        raise kind(f"cannot write {what}: {exc.strerror}", folder=str(folder)) from exc


def _seal(folder: Path, run: Mapping[str, str]) -> None:
    files = sorted(folder.iterdir())
    manifest = folder / MANIFEST
    listed = {path.name: _sha256(path) for path in files}
    manifest.write_text(json.dumps({"files": listed, "run": dict(run)}, indent=1))
    for path in (*files, manifest, folder):
        _sync(path)


def _steps(folder: Path) -> list[Path]:
    """All checkpoints by name, newest first, whole or not."""
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Bring a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
