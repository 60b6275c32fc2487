"""A folder that is there whole or not at all, with a manifest of what is in it."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


@contextmanager
def sealed_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill. At the end of the block it gets its manifest and takes the place of `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        staging.chmod(0o755)
        yield staging
        files = {path.name: entry_of(path) for path in sorted(staging.iterdir())}
        (staging / MANIFEST).write_text(to_json({"files": files}))
        if folder.exists():  # left by an attempt that ended before it was reported
            shutil.rmtree(folder)
        staging.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # gone already when it was renamed


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
