"""The reload gate: what it lets through, and three broken adapters that it must not."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.domain.run_folder import BaseModelSpec, RunConfig
from core.domain.training import TrainingConfig
from core.errors import NothingLearned, ReloadDiffers, ReloadFailed
from trainer.adapter import export_adapter
from trainer.model import add_lora, load_base
from trainer.reload import check_reload

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


def _remade(folder: Path, to: Path, change) -> Path:
    """A copy whose weights were changed, with a manifest that says so: broken by ourselves, not on the way."""
    from trainer.adapter import WEIGHTS
    from trainer.sealed import MANIFEST, entry_of, to_json

    shutil.copytree(folder, to)
    save_file(change(load_file(to / WEIGHTS)), to / WEIGHTS, metadata={"format": "pt"})
    files = {path.name: entry_of(path) for path in to.iterdir() if path.name != MANIFEST}
    (to / MANIFEST).write_text(to_json({"files": files}))
    return to


def test_a_good_adapter_passes(tuned):
    model, folder = tuned
    check_reload(model.train(), folder, base=SMALL, precision="fp32")
    assert model.training


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
