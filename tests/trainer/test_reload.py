"""The reload gate: what it lets through, and the broken adapters and models that it must not."""

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.domain.run_folder import BaseModelSpec, RunConfig
from core.domain.training import TrainingConfig
from core.errors import DiskFull, NothingLearned, OutOfMemory, ReloadDiffers, ReloadFailed
from trainer.adapter import CONFIG, WEIGHTS, export_adapter
from trainer.base import WEIGHTS as BASE_WEIGHTS
from trainer.model import add_lora, load_base
from trainer.reload import check_reload
from trainer.sealed import MANIFEST, entry_of, sealed_folder, to_json

SMALL = BaseModelSpec("builtin:small", "builtin:small")


@pytest.fixture(scope="module")
def tuned(small, tmp_path_factory):
    config = TrainingConfig(lora_rank=2)
    model = add_lora(load_base(SMALL).model, config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.fill_(0.2)
    folder = tmp_path_factory.mktemp("gate") / "adapter"
    export_adapter(model, small.tokenizer, folder, run=RunConfig(SMALL, config), revision=None, metrics={})
    return model, folder


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    model = load_base(SMALL).model
    with torch.no_grad():
        model.lm_head.weight.mul_(1.1)
    folder = tmp_path_factory.mktemp("gate") / "model"
    with sealed_folder(folder) as staging:
        model.save_pretrained(staging)
        small.tokenizer.save_pretrained(staging)
    return model, folder


def _remade(folder: Path, to: Path, change, weights: str = WEIGHTS) -> Path:
    """A copy whose weights were changed, with a manifest that says so: broken by ourselves, not on the way."""
    shutil.copytree(folder, to)
    save_file(change(load_file(to / weights)), to / weights, metadata={"format": "pt"})
    return _sealed(to)


def _sealed(folder: Path) -> Path:
    files = {path.name: entry_of(path) for path in folder.iterdir() if path.name != MANIFEST}
    (folder / MANIFEST).write_text(to_json({"files": files}))
    return folder


def test_a_good_adapter_passes(tuned):
    model, folder = tuned
    check_reload(model.train(), folder, base=SMALL, precision="fp32")
    assert model.training


def test_a_good_adapter_passes_without_a_temporary_folder_and_nothing_is_left_beside_it(tuned, monkeypatch):
    model, folder = tuned
    monkeypatch.setattr(tempfile, "tempdir", str(folder.parent / "no" / "such" / "folder"))
    check_reload(model, folder, base=SMALL, precision="fp32")
    assert [*folder.parent.iterdir()] == [folder]


def test_no_space_for_what_is_compared_is_a_full_disk(tuned, monkeypatch):
    model, folder = tuned

    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(DiskFull, match="No space left"):
        check_reload(model, folder, base=SMALL, precision="fp32")


@pytest.mark.parametrize(
    ("raised", "error", "told"),
    [
        ("safetensors.SafetensorError('No space left on device (os error 28)')", DiskFull, "No space left on device"),
        ("torch.OutOfMemoryError('CUDA out of memory')", OutOfMemory, "a second time"),
        ("RuntimeError('CUDA error: out of memory')", OutOfMemory, "a second time"),
        ("RuntimeError('a bug')", ReloadFailed, "a bug"),
    ],
    ids=["space", "memory", "memory of a library", "bug"],
)
def test_what_the_fresh_process_lacks_is_not_the_adapters_fault(tuned, tmp_path, monkeypatch, raised, error, told):
    """In the process itself writing fails, by way of the module that Python looks for when it starts."""
    model, folder = tuned
    (tmp_path / "sitecustomize.py").write_text(f"""
import safetensors.torch, torch
def refuse(*args, **kwargs):
    raise {raised}
safetensors.torch.save_file = refuse
""")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with pytest.raises(error, match=told):
        check_reload(model, folder, base=SMALL, precision="fp32")
    assert [*folder.parent.iterdir()] == [folder]


def test_a_stop_that_the_whole_group_is_told_is_not_the_adapters_fault(tuned, tmp_path, monkeypatch):
    """A worker that goes tells the group of its trainer, of which the fresh process is one."""
    model, folder = tuned
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, pathlib, signal
for stop in signal.SIGTERM, signal.SIGINT:
    os.kill(os.getpid(), stop)
pathlib.Path({str(tmp_path / "lived")!r}).touch()
""")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    check_reload(model, folder, base=SMALL, precision="fp32")
    assert (tmp_path / "lived").exists()


def test_weights_that_are_not_the_trained_ones_are_noticed(tuned, tmp_path):
    model, folder = tuned
    broken = _remade(folder, tmp_path / "adapter", lambda weights: {n: w * 1.01 for n, w in weights.items()})
    with pytest.raises(ReloadDiffers, match="answers differently"):
        check_reload(model, broken, base=SMALL, precision="fp32")


def test_an_adapter_without_effect_is_noticed(tuned, tmp_path):
    model, folder = tuned
    broken = _remade(folder, tmp_path / "adapter", lambda weights: {n: w * 0 for n, w in weights.items()})
    with pytest.raises(NothingLearned, match="does not change"), model.disable_adapter():
        check_reload(model, broken, base=SMALL, precision="fp32")


def test_missing_weights_are_noticed(tuned, tmp_path):
    model, folder = tuned
    broken = _remade(folder, tmp_path / "adapter", lambda weights: dict(sorted(weights.items())[2:]))
    with pytest.raises(ReloadFailed, match="does not load in a fresh process"):
        check_reload(model, broken, base=SMALL, precision="fp32")


def test_an_adapter_that_loads_with_a_warning_is_refused(tuned, tmp_path):
    """It is the right one all the same: the warning alone is what is refused."""
    model, folder = tuned
    shutil.copytree(folder, tmp_path / "adapter")
    config = json.loads((folder / CONFIG).read_text()) | {"of_a_later_peft": True}  # peft warns that it ignores it
    (tmp_path / "adapter" / CONFIG).write_text(to_json(config))
    with pytest.raises(ReloadFailed, match="of_a_later_peft"):
        check_reload(model, _sealed(tmp_path / "adapter"), base=SMALL, precision="fp32")


def test_a_good_whole_model_passes(whole):
    model, folder = whole
    check_reload(model, folder, base=SMALL, precision="fp32")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda weights: weights | {"score.weight": torch.ones(2, 64)}, "no place for: score.weight"),
        # A norm is newly made of ones, as those of builtin:small are: the logits do not tell.
        (lambda weights: {n: w for n, w in weights.items() if n != "model.norm.weight"}, "lack .*: model.norm.weight"),
    ],
    ids=["one too many", "one too few"],
)
def test_a_whole_model_of_other_weights_than_its_config_says_is_refused(whole, tmp_path, change, told):
    model, folder = whole
    broken = _remade(folder, tmp_path / "model", change, BASE_WEIGHTS)
    with pytest.raises(ReloadFailed, match=told):
        check_reload(model, broken, base=SMALL, precision="fp32")
