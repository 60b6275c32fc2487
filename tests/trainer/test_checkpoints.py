"""A checkpoint is whole or it does not count."""

import json

import pytest

from core.errors import DiskFull
from trainer.checkpoints import MANIFEST, is_whole, newest_checkpoint, save_checkpoint, step_of


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
