"""A sealed folder is there whole, on disk, or not at all; and what killed processes left goes."""

import os
from contextlib import suppress

from trainer.sealed import MANIFEST, sealed_folder


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_what_killed_attempts_left_is_gone_before_the_next_begins(tmp_path):
    for left in (".adapter-abcd_123", ".adapter-zzzzzzzz"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "adapter_model.safetensors").write_bytes(b"half")
    for other in (".merged-abcd_123", ".adapter-notes", ".adapter"):
        (tmp_path / other).mkdir()
    with sealed_folder(tmp_path / "adapter") as staging:
        during = names(tmp_path)
        (staging / "a").write_text("a")
    assert not during & {".adapter-abcd_123", ".adapter-zzzzzzzz"}, "a full disk may need their space"
    assert names(tmp_path) == {"adapter", ".merged-abcd_123", ".adapter-notes", ".adapter"}


def test_what_was_there_is_replaced_and_no_part_of_it_stays(tmp_path):
    for name in ("a", "b"):
        with sealed_folder(tmp_path / "adapter") as staging:
            (staging / name).write_text(name)
    assert names(tmp_path) == {"adapter"}
    assert names(tmp_path / "adapter") == {"b", MANIFEST}


def test_all_of_it_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A `finished` event, which is on disk itself, tells of it."""
    done = []
    sync, replace = os.fsync, os.replace

    def noted_sync(descriptor):
        stat = os.fstat(descriptor)
        done.append((stat.st_ino, stat.st_size))
        sync(descriptor)

    def noted_replace(*paths):
        done.append("renamed")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    with sealed_folder(tmp_path / "adapter") as staging:
        (staging / "a").write_bytes(b"a" * 100)
        (staging / "b").write_bytes(b"b" * 200)
    before, after = done[: done.index("renamed")], done[done.index("renamed") + 1 :]
    for file in (tmp_path / "adapter").iterdir():
        assert (file.stat().st_ino, file.stat().st_size) in before, file.name
    assert (tmp_path / "adapter").stat().st_ino in [inode for inode, _ in before]
    assert [inode for inode, _ in after] == [tmp_path.stat().st_ino]


def test_a_folder_that_fails_leaves_what_was_there(tmp_path):
    with sealed_folder(tmp_path / "adapter") as staging:
        (staging / "a").write_text("a")
    with suppress(ZeroDivisionError), sealed_folder(tmp_path / "adapter") as staging:
        (staging / "b").write_text("b")
        raise ZeroDivisionError
    assert names(tmp_path) == {"adapter"}
    assert names(tmp_path / "adapter") == {"a", MANIFEST}
