"""A file that cannot be written fails as files do."""

import errno
import resource

import pytest
import torch
from safetensors.torch import load_file

from core.errors import TrainingFailed
from trainer.checkpoints import save_checkpoint
from trainer.tensors import save_tensors

TENSORS = {"a": torch.arange(10_000.0)}


@pytest.fixture
def _small_files():
    """Writing past 1,000 bytes fails, as it does on a full disk but for the number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_saved_can_be_loaded(tmp_path):
    save_tensors(TENSORS, tmp_path / "x")
    assert torch.equal(load_file(tmp_path / "x")["a"], TENSORS["a"])


@pytest.mark.usefixtures("_small_files")
def test_what_cannot_be_written_is_an_os_error_with_its_number(tmp_path):
    with pytest.raises(OSError, match="File too large") as caught:
        save_tensors(TENSORS, tmp_path / "x")
    assert caught.value.errno == errno.EFBIG


@pytest.mark.usefixtures("_small_files")
def test_a_checkpoint_of_tensors_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(TrainingFailed, match="cannot write a checkpoint: File too large"):
        save_checkpoint(tmp_path / "c", 1, lambda folder: save_tensors(TENSORS, folder / "x"))
    assert not [*(tmp_path / "c").iterdir()]


def test_a_folder_in_the_way_is_the_same_kind_of_error(tmp_path):
    with pytest.raises(IsADirectoryError):
        save_tensors(TENSORS, tmp_path)
