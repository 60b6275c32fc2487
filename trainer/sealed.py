"""A folder that is there whole or not at all, with a manifest of what is in it."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from trainer.checkpoints import sync

MANIFEST = "manifest.json"


@contextmanager
def sealed_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill. At the end of the block it gets its manifest and takes the place of `folder`, on disk.

    Only one process may do this for the same `folder` at a time: what a killed one left beside it is removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(f".{escape(folder.name)}-{'[a-z0-9_]' * 8}"):  # as tempfile names them
        shutil.rmtree(leftover)
    staging = _beside(folder)
    replaced = _beside(folder)
    try:
        staging.chmod(0o755)
        yield staging
        files = sorted(staging.iterdir())
        (staging / MANIFEST).write_text(to_json({"files": {path.name: entry_of(path) for path in files}}))
        for path in (*files, staging / MANIFEST, staging):
            sync(path)
        if folder.exists():  # left by an attempt that ended before it was reported
            folder.replace(replaced)  # at once, for half of it must not be seen
        staging.replace(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # gone already when it was renamed
        shutil.rmtree(replaced, ignore_errors=True)


def entry_of(path: Path) -> dict[str, Any]:
    """A file's line in the manifest: sha256 and bytes."""
    return {"sha256": sha256_of(path), "bytes": path.stat().st_size}


def sha256_of(path: Path) -> str:
    """Of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(value: Any) -> str:
    """The same value, the same bytes."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _beside(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
