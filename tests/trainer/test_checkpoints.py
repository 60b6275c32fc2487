"""A checkpoint is whole or it does not count."""

import json
import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from core.errors import DiskFull
from tests.trainer import killed_save
from trainer.checkpoints import (
    MANIFEST,
    is_whole,
    newest_checkpoint,
    remove_newer,
    run_of,
    save_checkpoint,
    step_of,
)

ROOT = Path(__file__).parents[2]
RUN = {"config": "c0ffee", "number of processes": "2"}


def fill(folder):
    (folder / "a.bin").write_bytes(b"weights" * 100)
    (folder / "b.json").write_text("{}")


def test_a_saved_checkpoint_is_whole(tmp_path):
    path = save_checkpoint(tmp_path / "checkpoints", 400, fill)
    assert (is_whole(path), step_of(path)) == (True, 400)
    assert newest_checkpoint(tmp_path / "checkpoints") == path


def test_without_a_folder_there_is_none(tmp_path):
    assert newest_checkpoint(tmp_path / "checkpoints") is None


def test_two_are_kept(tmp_path):
    for step in (90, 100, 1000):
        save_checkpoint(tmp_path, step, fill)
    assert sorted(step_of(path) for path in tmp_path.iterdir()) == [100, 1000]


def tear(checkpoint):
    (checkpoint / "a.bin").write_bytes(b"")


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_torn_ones_that_are_newer_do_not_cost_the_one_just_saved(tmp_path):
    for step in (3, 6, 8):
        newest = save_checkpoint(tmp_path, step, fill)
        if step > 3:
            tear(newest)
    kept = save_checkpoint(tmp_path, 4, fill)
    assert newest_checkpoint(tmp_path) == kept


@pytest.mark.parametrize("from_step", [6, None])
def test_what_is_newer_than_what_a_run_resumes_from_goes(tmp_path, from_step):
    older, newer = (save_checkpoint(tmp_path, step, fill) for step in (6, 8))
    tear(newer)
    if from_step is None:
        tear(older)
    remove_newer(tmp_path, newest_checkpoint(tmp_path))
    assert names(tmp_path) == ({older.name} if from_step else set())


def test_before_the_first_checkpoint_nothing_is_to_be_removed(tmp_path):
    remove_newer(tmp_path / "checkpoints", None)
    assert not names(tmp_path)


def test_what_only_looks_like_a_checkpoint_takes_no_place_and_stays(tmp_path):
    strays = ("step-backup", "step-00000009-old", "step-")
    for name in strays:
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000007").write_text("a file")
    kept = [save_checkpoint(tmp_path, step, fill) for step in (1, 2)]
    remove_newer(tmp_path, newest_checkpoint(tmp_path))
    assert names(tmp_path) == {*strays, "step-00000007", *(path.name for path in kept)}
    assert newest_checkpoint(tmp_path) == kept[-1]


@pytest.mark.parametrize("name", ["a.bin", "b.json", MANIFEST])
@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_a_torn_one_is_passed_over(tmp_path, name, harm):
    older, newer = (save_checkpoint(tmp_path, step, fill) for step in (1, 2))
    path = newer / name
    content = path.read_bytes()
    if harm == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "flip":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        path.unlink()
    assert newest_checkpoint(tmp_path) == older
    save_checkpoint(tmp_path, 2, fill)  # the resumed run comes to the same step again
    assert newest_checkpoint(tmp_path) == newer


def test_no_flipped_byte_of_a_manifest_changes_what_it_says(tmp_path):
    """Else a run would be refused its own checkpoint, where it could have gone on from the one before."""
    path = save_checkpoint(tmp_path, 1, fill, RUN)
    manifest = path / MANIFEST
    content = manifest.read_bytes()
    files = json.loads(content)["files"]
    for position, byte in enumerate(content):
        for flip in (0x01, 0x20):  # the next character, the other case
            manifest.write_bytes(content[:position] + bytes([byte ^ flip]) + content[position + 1 :])
            if is_whole(path):
                assert (json.loads(manifest.read_bytes())["files"], run_of(path)) == (files, RUN), (position, flip)
    manifest.write_bytes(content)
    assert is_whole(path)


@pytest.mark.parametrize("run", [{"run": RUN}, {}])
def test_a_checkpoint_of_the_version_without_a_seal_counts(tmp_path, run):
    path = save_checkpoint(tmp_path, 1, fill, RUN)
    files = json.loads((path / MANIFEST).read_bytes())["files"]
    (path / MANIFEST).write_text(json.dumps({"files": files, **run}))
    assert newest_checkpoint(tmp_path) == path
    assert run_of(path) == run.get("run", {})


def test_a_file_too_many_is_not_ours(tmp_path):
    path = save_checkpoint(tmp_path, 1, fill)
    (path / "c.bin").write_bytes(b"")
    assert not is_whole(path)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = save_checkpoint(tmp_path, 1, fill)

    def full_disk(folder):
        fill(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskFull, match="No space left"):
        save_checkpoint(tmp_path, 2, full_disk)
    assert [*tmp_path.iterdir()] == [path]
    assert newest_checkpoint(tmp_path) == path


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    leftover = tmp_path / ".step-00000001"
    leftover.mkdir()
    fill(leftover)
    assert newest_checkpoint(tmp_path) is None
    path = save_checkpoint(tmp_path, 2, fill)
    assert [*tmp_path.iterdir()] == [path]
    assert json.loads((path / MANIFEST).read_text())["files"].keys() == {"a.bin", "b.json"}


def test_killed_at_any_write_it_leaves_the_old_or_the_new(tmp_path):
    """And what the killed process left is gone after the next one. There is a torn one of the same step before."""
    for at in count(1):
        folder = tmp_path / str(at)
        tear(save_checkpoint(folder, 3, fill))
        for step in (1, 2):
            save_checkpoint(folder, step, fill)
        argv = [sys.executable, "-m", "tests.trainer.killed_save", str(folder), "3", str(at)]
        code = subprocess.run(argv, cwd=ROOT, check=False).returncode
        newest = newest_checkpoint(folder)
        assert step_of(newest) in ((2, 3) if code else (3,)), at
        if step_of(newest) == 3:
            assert (newest / "a.bin").read_bytes() == b"half and half"
            assert run_of(newest) == {"config": "c0ffee"}
        remove_newer(folder, newest)
        assert newest_checkpoint(folder) == newest
        following = save_checkpoint(folder, 4, fill)
        assert names(folder) == {newest.name, following.name}, at
        assert is_whole(newest)
        assert is_whole(following)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert at > 20  # it was killed in halves of files, between syncs, among removals


def test_all_of_it_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A machine that loses power keeps names it was told of before contents it was not told to keep."""
    done = []
    sync, rename = os.fsync, os.rename

    def noted_sync(descriptor):
        stat = os.fstat(descriptor)
        done.append((stat.st_ino, stat.st_size))
        sync(descriptor)

    def noted_rename(*paths):
        done.append("renamed")
        rename(*paths)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "rename", noted_rename)
    folder = tmp_path / "checkpoints"
    path = save_checkpoint(folder, 1, killed_save.fill)
    before, after = done[: done.index("renamed")], done[done.index("renamed") + 1 :]
    for file in path.iterdir():
        assert (file.stat().st_ino, file.stat().st_size) in before, file.name
    assert path.stat().st_ino in [inode for inode, _ in before]
    assert tmp_path.stat().st_ino in [inode for inode, _ in before], "the new folder's own name"
    assert [inode for inode, _ in after] == [folder.stat().st_ino]
