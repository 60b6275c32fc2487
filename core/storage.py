"""Blobs: whole files under keys that we make up, never under names that users sent.

A blob is staged first, which copies and checksums it; publishing is one rename. Nobody sees half a blob.
"""

import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from core.errors import NotFound

_KEY = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+(\.[a-z0-9]+)*)+")
_STAGING = "staging"
_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Staged:
    """A blob that was written and checksummed, and that nobody can see yet."""

    path: Path
    sha256: str
    size: int  # bytes


class BlobStore:
    """Blobs in a local folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stage(self, source: Path) -> Staged:
        """Copy a file in, and through to the disk."""
        staging = self._folder / _STAGING
        staging.mkdir(parents=True, exist_ok=True)
        path = staging / secrets.token_hex(16)
        sha, size = hashlib.sha256(), 0
        with source.open("rb") as read, path.open("wb") as write:
            while chunk := read.read(_CHUNK):
                sha.update(chunk)
                size += write.write(chunk)
            write.flush()
            os.fsync(write.fileno())
        return Staged(path, sha.hexdigest(), size)

    def publish(self, staged: Staged, key: str) -> None:
        """Make a staged blob visible under `key`, in place of what was there."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.path.replace(path)
        _sync_folder(path.parent)

    def discard(self, staged: Staged) -> None:
        """Remove what was staged, unless it was published."""
        staged.path.unlink(missing_ok=True)

    def open(self, key: str) -> tuple[BinaryIO, int]:
        """A blob for reading, and its size in bytes. It stays readable when it is deleted meanwhile.

        Raises
        ------
        NotFound
            When there is no such blob.
        """
        try:
            file = self._path(key).open("rb")
        except FileNotFoundError as exc:
            raise NotFound("the stored file is gone", key=key) from exc
        return file, os.fstat(file.fileno()).st_size

    def delete(self, key: str) -> None:
        """Remove a blob; one that is not there is fine."""
        self._path(key).unlink(missing_ok=True)

    def keys(self, prefix: str) -> Iterator[tuple[str, float]]:
        """Every key below `prefix`, and when it was published in unix seconds."""
        for path in sorted((self._folder / prefix).rglob("*")):
            if path.is_file():
                yield path.relative_to(self._folder).as_posix(), path.stat().st_mtime

    def drop_staged(self, *, older_than: float) -> int:
        """Remove what was staged more than `older_than` seconds ago and never published; the number of them."""
        limit, dropped = time.time() - older_than, 0
        for path in (self._folder / _STAGING).glob("*"):
            if path.stat().st_mtime < limit:
                path.unlink(missing_ok=True)
                dropped += 1
        return dropped

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key) or key.startswith(f"{_STAGING}/"):
            raise ValueError(f"not a key of ours: {key!r}")
        return self._folder / key


def _sync_folder(folder: Path) -> None:
    """A rename is durable only once the folder's own entry is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
