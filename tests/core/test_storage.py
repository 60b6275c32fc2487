"""Blobs are seen whole or not at all, under keys of ours."""

import hashlib
import os
from pathlib import Path

import pytest

from core.errors import NotFound
from core.storage import BlobStore


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def _source(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "source"
    path.write_bytes(content)
    return path


def test_a_staged_blob_is_seen_once_it_is_published(blobs: BlobStore, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    staged = blobs.stage(_source(tmp_path, content))
    assert (staged.sha256, staged.size) == (hashlib.sha256(content).hexdigest(), len(content))
    with pytest.raises(NotFound):
        blobs.open("adapters/tr_1/a.tar.gz")
    assert list(blobs.keys("adapters")) == []
    blobs.publish(staged, "adapters/tr_1/a.tar.gz")
    file, size = blobs.open("adapters/tr_1/a.tar.gz")
    with file:
        assert (file.read(), size) == (content, len(content))
    assert [key for key, _ in blobs.keys("adapters")] == ["adapters/tr_1/a.tar.gz"]


def test_a_blob_being_read_survives_its_deletion(blobs: BlobStore, tmp_path: Path) -> None:
    blobs.publish(blobs.stage(_source(tmp_path, b"adapter")), "adapters/a")
    file, _ = blobs.open("adapters/a")
    blobs.delete("adapters/a")
    blobs.delete("adapters/a")  # again is fine
    with file:
        assert file.read() == b"adapter"
    with pytest.raises(NotFound):
        blobs.open("adapters/a")


def test_publishing_again_replaces(blobs: BlobStore, tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        blobs.publish(blobs.stage(_source(tmp_path, content)), "adapters/a")
    file, _ = blobs.open("adapters/a")
    with file:
        assert file.read() == b"two"


def test_what_was_staged_and_forgotten_is_dropped(blobs: BlobStore, tmp_path: Path) -> None:
    old, new = (blobs.stage(_source(tmp_path, b"x")) for _ in range(2))
    os.utime(old.path, (0, 0))
    assert blobs.drop_staged(older_than=3600) == 1
    assert (old.path.exists(), new.path.exists()) == (False, True)
    blobs.discard(new)
    blobs.discard(new)
    assert not new.path.exists()


@pytest.mark.parametrize("key", ["../secret", "/etc/passwd", "a/../../b", "a", "", "A/b", "a/.b", "staging/x", "a//b"])
def test_nothing_but_our_own_keys(blobs: BlobStore, key: str) -> None:
    with pytest.raises(ValueError, match="not a key of ours"):
        blobs.open(key)
