"""Checkpoints that are whole or absent: written aside, synced, listed with their sha256, then renamed into place.

checkpoints/
    step-00000400/    files of the checkpoint, and manifest.json: {"files": {name: sha256}, "run": fingerprint,
                      "sha256": of these two}
    .step-...         being written, or left over by a killed process
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import DiskFull, TrainingFailed

MANIFEST = "manifest.json"
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})  # or no quota

_KEPT = 2  # the newest, and one to fall back to
_PREFIX = "step-"
_SEAL = "sha256"  # of the rest of the manifest, in it


def save_checkpoint(
    folder: Path, step: int, fill: Callable[[Path], None], run: Mapping[str, str] | None = None
) -> Path:
    """Make the checkpoint of `step` from the files that `fill` writes into the empty folder it is given.

    `run` says what the checkpoint belongs to, see trainer.fingerprint.

    Older checkpoints but one are removed afterwards. Newer ones are not looked at, see remove_newer.

    Raises
    ------
    DiskFull, TrainingFailed
        It cannot be written. What was there before is untouched.
    """
    with disk_errors("a checkpoint", folder):
        if not folder.exists():
            folder.mkdir(parents=True)
            sync(folder.parent)
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
            sync(folder)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        older = [path for path in _steps(folder) if step_of(path) < step]
        for old in older[_KEPT - 1 :]:
            shutil.rmtree(old)
    return final


def remove_newer(folder: Path, than: Path | None) -> None:
    """Remove the checkpoints newer than the one that a run resumes from, or all where it begins anew (None).

    They are torn, or it would resume from them; and it makes those steps again. Only for who holds the run folder.

    Raises
    ------
    DiskFull, TrainingFailed
        They cannot be removed.
    """
    with disk_errors("over torn checkpoints", folder):
        for path in _steps(folder):
            if than is None or step_of(path) > step_of(than):
                shutil.rmtree(path)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose every file is there with the content its manifest names; None without one."""
    return next((path for path in _steps(folder) if is_whole(path)), None)


def step_of(checkpoint: Path) -> int:
    """The number of optimiser steps a checkpoint was made after."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def run_of(checkpoint: Path) -> dict[str, str]:
    """What a whole checkpoint was said to belong to; empty where nothing was."""
    said: dict[str, str] = _manifest_of(checkpoint).get("run", {})
    return said


def is_whole(checkpoint: Path) -> bool:
    """Whether the files are exactly those of the manifest, with their sha256, and it is as it was written."""
    try:
        listed = _manifest_of(checkpoint)["files"]
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
        kind = DiskFull if exc.errno in NO_SPACE else TrainingFailed
        raise kind(f"cannot write {what}: {exc.strerror}", folder=str(folder)) from exc


def sync(path: Path) -> None:
    """Bring a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _seal(folder: Path, run: Mapping[str, str]) -> None:
    files = sorted(folder.iterdir())
    manifest = folder / MANIFEST
    content = {"files": {path.name: _sha256(path) for path in files}, "run": dict(run)}
    manifest.write_text(json.dumps({**content, _SEAL: _digest(content)}, indent=1))
    for path in (*files, manifest, folder):
        sync(path)


def _manifest_of(checkpoint: Path) -> dict[str, Any]:
    """What was sealed. ValueError or TypeError when that is not what stands there."""
    content: dict[str, Any] = dict(json.loads((checkpoint / MANIFEST).read_bytes()))
    seal = content.pop(_SEAL, None)
    if seal is None and content.keys() <= {"files", "run"}:  # of the version that had no seal
        return content
    if seal != _digest(content):
        raise ValueError("the manifest is not as it was written")
    return content


def _steps(folder: Path) -> list[Path]:
    """All checkpoints, newest first, whole or not."""
    named = (path for path in folder.glob(f"{_PREFIX}*") if re.fullmatch(f"{_PREFIX}[0-9]+", path.name))
    return sorted((path for path in named if path.is_dir()), key=step_of, reverse=True)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
