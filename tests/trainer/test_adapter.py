"""The adapter folder: deterministic, complete, self-checking, and refused when it would be worthless or unservable."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from core.domain.run_folder import BaseModelSpec, RunConfig
from core.domain.training import Method, TrainingConfig
from core.errors import AdapterDamaged, NotFinite, TrainingFailed
from trainer.adapter import check_servable, export_adapter, load_adapter, verify_adapter
from trainer.card import model_card, vllm_rank
from trainer.model import add_lora, load_base

ROOT = Path(__file__).parents[2]
SMALL = BaseModelSpec("builtin:small", "builtin:small")
RUN = RunConfig(SMALL, TrainingConfig(lora_rank=4, lora_alpha=8), data_sha256="d" * 64, run_id="job_1")
METRICS = {"ood": {"accuracy": 0.97, "n": 400}, "iid": {"accuracy": 0.5, "n": 400}}


def _tuned(small, *, config: TrainingConfig = RUN.training):
    """A LoRA model whose B matrices are no longer zero."""
    model = add_lora(load_base(SMALL).model, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def tuned(small):
    return _tuned(small)


@pytest.fixture(scope="module")
def exported(small, tuned, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "adapter"
    export_adapter(tuned, small.tokenizer, folder, run=RUN, revision=small.revision, metrics=METRICS)
    return folder


def _copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_folder_is_complete_and_verifies(exported, small):
    names = {path.name for path in exported.iterdir()}
    assert {
        "adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "tokenizer_config.json", "README.md",
        "manifest.json",
    } <= names  # fmt: skip
    manifest = json.loads((exported / "manifest.json").read_text())
    assert set(manifest["files"]) == names - {"manifest.json"}
    verify_adapter(exported)
    config = json.loads((exported / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "builtin:small"
    assert config["revision"] == small.revision
    assert config["inference_mode"] is True
    assert config["target_modules"] == sorted(config["target_modules"])
    assert len(config["target_modules"]) == 14


def test_nothing_is_left_beside_it(exported):
    assert [path.name for path in exported.parent.iterdir()] == ["adapter"]


def test_reloading_gives_the_same_logits(exported, small, tuned):
    ids = torch.arange(20, 60)[None]
    adapted = load_adapter(load_base(SMALL).model, exported)
    with torch.no_grad():
        assert torch.equal(adapted(input_ids=ids).logits, tuned(input_ids=ids).logits)
        assert not torch.allclose(adapted(input_ids=ids).logits, small.model(input_ids=ids).logits)


def test_exporting_again_replaces_and_gives_the_same_bytes(exported, small, tuned, tmp_path):
    folder = _copy(exported, tmp_path / "adapter")
    (folder / "stale.txt").write_text("from an earlier attempt")
    export_adapter(tuned, small.tokenizer, folder, run=RUN, revision=small.revision, metrics=METRICS)
    assert _bytes(folder) == _bytes(exported)


_EXPORT = """
import sys
from pathlib import Path
from tests.trainer.test_adapter import METRICS, RUN, SMALL, _tuned
from trainer.adapter import export_adapter
from trainer.model import load_base
base = load_base(SMALL)
export_adapter(_tuned(base), base.tokenizer, Path(sys.argv[1]), run=RUN, revision=base.revision, metrics=METRICS)
"""


def test_bytes_do_not_follow_the_hash_seed(exported, tmp_path):
    """Sets iterate in the order of PYTHONHASHSEED: two seeds, and this process's own, must not matter."""
    for seed in ("1", "2"):
        folder = tmp_path / seed
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", _EXPORT, str(folder)]
        subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
        assert _bytes(folder) == _bytes(exported)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "README.md", "tokenizer.json"])
def test_one_flipped_bit_is_named(exported, tmp_path, name):
    folder = _copy(exported, tmp_path / "adapter")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(AdapterDamaged, match="differs") as caught:
        verify_adapter(folder)
    assert caught.value.facts["file"] == name


def test_a_missing_file_is_named(exported, tmp_path):
    folder = _copy(exported, tmp_path / "adapter")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(AdapterDamaged, match="missing") as caught:
        verify_adapter(folder)
    assert caught.value.facts["file"] == "tokenizer.json"


@pytest.mark.parametrize(
    "manifest", [None, "{", "[]", '{"files": []}', '{"files": {}}', '{"files": {"adapter_model.safetensors": 1}}']
)
def test_a_manifest_that_says_nothing_is_refused(exported, tmp_path, manifest):
    folder = _copy(exported, tmp_path / "adapter")
    (folder / "manifest.json").unlink()
    if manifest is not None:
        (folder / "manifest.json").write_text(manifest)
    with pytest.raises(AdapterDamaged):
        verify_adapter(folder)


def test_a_manifest_cannot_point_outside(exported, tmp_path):
    folder = _copy(exported, tmp_path / "adapter")
    (tmp_path / "outside").write_text("x")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../outside"] = {
        "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
        "bytes": 1,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(AdapterDamaged):
        verify_adapter(folder)


def test_an_adapter_for_another_base_is_refused(exported):
    from transformers import LlamaConfig, LlamaForCausalLM

    other = LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
    )
    with pytest.raises(AdapterDamaged, match="does not fit"):
        load_adapter(other, exported)


def test_an_adapter_that_learned_nothing_is_refused(small, tmp_path):
    fresh = add_lora(load_base(SMALL).model, RUN.training)
    with pytest.raises(TrainingFailed, match="every delta"):
        export_adapter(fresh, small.tokenizer, tmp_path / "a", run=RUN, revision=None, metrics={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(small, tmp_path, value):
    model = _tuned(small)
    with torch.no_grad():
        next(w for name, w in model.named_parameters() if ".lora_A." in name)[0, 0] = value
    with pytest.raises(NotFinite):
        export_adapter(model, small.tokenizer, tmp_path / "a", run=RUN, revision=None, metrics={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (LoraConfig(r=513), "rank 513"),
        (LoraConfig(bias="all"), "bias"),
        (LoraConfig(use_dora=True), "DoRA"),
        (LoraConfig(modules_to_save=["lm_head"]), "whole modules"),
    ],
)
def test_what_vllm_would_refuse_is_refused(config, reason):
    with pytest.raises(TrainingFailed, match=reason):
        check_servable(config)


@pytest.mark.parametrize(("rank", "served"), [(1, 1), (2, 8), (8, 8), (16, 16), (65, 128), (257, 320), (512, 512)])
def test_smallest_vllm_rank(rank, served):
    assert vllm_rank(rank) == served


def test_card_tells_all(exported):
    card = (exported / "README.md").read_text()
    for part in ("`cat`", "d" * 64, "job_1", "| ood | 0.9700 | 400 |", "causeway base export builtin:small small"):
        assert part in card
    assert "--max-lora-rank 8" in card
    assert '"guide_until": 0.3' in card, "a preset's values are written out"


def test_card_of_a_hub_base_pins_its_revision():
    run = replace(RUN, base=BaseModelSpec("big", "org/big", "main"), training=TrainingConfig(method=Method.SFT))
    card = model_card(run=run, revision="c0ffee", metrics={}, targets=["q_proj"])
    assert 'from_pretrained("org/big", revision="c0ffee")' in card
    assert "vllm serve org/big --enable-lora --max-lora-rank 16" in card
    assert "Not evaluated." in card
    assert "seeded toy" not in card
    assert "Causal Attention Tuning" not in card
    assert '"objective": null' in card


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
