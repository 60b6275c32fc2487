"""A base that is a folder: what was changed in it since a checkpoint was saved is noticed."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.domain.run_folder import BaseModelSpec, RunConfig
from core.domain.training import TrainingConfig
from core.errors import CheckpointMismatch
from tests.trainer.runs import StopAfter, run_folder
from trainer.base import WEIGHTS, export_small
from trainer.checkpoints import MANIFEST, newest_checkpoint, save_checkpoint
from trainer.events import EventLog
from trainer.fingerprint import _BLOCK, _BLOCKS, _HEAD, fingerprint_of, require_same
from trainer.train import train

CONFIG = TrainingConfig(epochs=1, batch_size=8, lora_rank=2, log_every=1)


@pytest.fixture
def base(tmp_path) -> Path:
    export_small(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def folder(tmp_path) -> Path:
    return run_folder(tmp_path / "run", CONFIG)


def _run(base: Path) -> RunConfig:
    return RunConfig(BaseModelSpec("mine", str(base)), CONFIG)


def _scale(base: Path, name: str) -> None:
    weights = load_file(base / WEIGHTS)
    weights[name] *= 1.5
    save_file(weights, base / WEIGHTS, metadata={"format": "pt"})


def _go_on(base: Path, folder: Path, stop=lambda: False):
    return train(_run(base), folder, EventLog(folder / "events.jsonl"), should_stop=stop, reload_check=False)


def test_a_base_that_was_changed_in_place_is_refused(base, folder):
    assert _go_on(base, folder, StopAfter(1)) is None
    _scale(base, "model.layers.1.mlp.up_proj.weight")
    with pytest.raises(CheckpointMismatch, match="another base files;") as caught:
        _go_on(base, folder)
    assert caught.value.facts["differs"] == ["base files"]


def test_a_base_that_was_moved_away_and_copied_back_is_the_same(base, folder, tmp_path):
    assert _go_on(base, folder, StopAfter(1)) is None
    shutil.move(base, tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", base, copy_function=shutil.copyfile)
    for path in base.iterdir():
        os.utime(path, (1, 1))
    assert _go_on(base, folder).steps == 3


def test_a_checkpoint_of_the_version_before_is_gone_on_with_and_one_of_no_run_is_not(base, folder):
    assert _go_on(base, folder, StopAfter(1)) is None
    checkpoint = newest_checkpoint(folder / "checkpoints")
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    del manifest["run"]["base files"]
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))
    assert _go_on(base, folder).steps == 3
    unnamed = save_checkpoint(folder / "other", 1, lambda folder: None)
    with pytest.raises(CheckpointMismatch, match="config and base and data"):
        require_same(unnamed, fingerprint_of(_run(base), folder, None))


def test_only_a_folder_has_files_to_compare(base, folder):
    assert "base files" in fingerprint_of(_run(base), folder, None)
    assert "base files" not in fingerprint_of(_run(base), folder, "a revision")


def test_config_names_and_sizes_count_and_other_files_do_not(base, folder):
    def found() -> str:
        return fingerprint_of(_run(base), folder, None)["base files"]

    seen = [found()]
    (base / "README.md").write_text("another card")
    assert found() == seen[0]
    (base / "config.json").write_text((base / "config.json").read_text().replace("10000.0", "20000.0"))
    seen.append(found())
    (base / WEIGHTS).rename(base / "model-00001-of-00001.safetensors")
    seen.append(found())
    (base / "more.safetensors").write_bytes(b"")
    seen.append(found())
    with (base / "more.safetensors").open("r+b") as file:
        file.truncate(2**33)  # sparse
    seen.append(found())
    assert len({*seen}) == 5


@pytest.mark.parametrize("extra", [0, 1, 10 * 2**20 + 7])
def test_a_large_file_is_read_from_its_first_byte_to_its_last(base, folder, extra):
    large = base / "large.safetensors"
    size = _HEAD + _BLOCKS * _BLOCK + extra
    stride = (size - _BLOCK - _HEAD) // (_BLOCKS - 1)  # from one block to the next
    with large.open("wb") as file:
        file.truncate(size)
    seen = {fingerprint_of(_run(base), folder, None)["base files"]}
    changed = [0, _HEAD - 1, _HEAD, _HEAD + stride + _BLOCK // 2, _HEAD + 40 * stride + _BLOCK // 2, size - 1]
    for position in changed:
        with large.open("r+b") as file:
            file.seek(position)
            file.write(b"x")
        seen.add(fingerprint_of(_run(base), folder, None)["base files"])
    assert len(seen) == len(changed) + 1


def test_a_tensor_of_a_large_file_that_is_scaled_is_noticed(base, folder):
    weights = {f"layer.{number}": torch.ones(2**18) for number in range(16)}  # 1 MiB each
    save_file(weights, base / "large.safetensors")
    before = fingerprint_of(_run(base), folder, None)
    weights["layer.7"] *= 1.5
    save_file(weights, base / "large.safetensors")
    assert fingerprint_of(_run(base), folder, None) != before
