"""The finished adapter as a folder that explains and checks itself: weights, config, tokenizer, card, manifest.

The same weights, config and metrics give the same bytes, whatever the process: no time stamps, nothing in set order.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.domain.run_folder import BaseModelSpec, RunConfig
from core.errors import AdapterDamaged, NotFinite, NothingLearned, NotServable
from trainer.card import VLLM_RANKS, model_card
from trainer.checkpoints import disk_errors
from trainer.model import no_false_alarm
from trainer.sealed import MANIFEST, entry_of, sealed_folder, sha256_of, to_json
from trainer.tensors import os_errors, save_tensors

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

Metrics = Mapping[str, Mapping[str, float]]


def export_adapter(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    run: RunConfig,
    revision: str | None,
    metrics: Metrics,
) -> str:
    """Write the adapter to `folder`, whole or not at all, in place of what is there.

    Parameters
    ----------
    revision
        Of the base model, as load_base resolved it.
    metrics
        Split to its metrics, for the card.

    Returns
    -------
    str
        sha256 of adapter_model.safetensors.

    Raises
    ------
    NotFinite
        A weight is NaN or infinite.
    NothingLearned
        Every delta is zero.
    NotServable
        vLLM would refuse the adapter (rank, bias, DoRA, whole modules).
    DiskFull, TrainingFailed
        It cannot be written. What was there before is untouched.
    """
    lora = cast("LoraConfig", model.peft_config["default"])
    check_servable(lora)
    weights = _weights(model)
    config = _complete(lora, base=run.base.source, revision=revision)
    with disk_errors("the adapter", folder), os_errors(folder), sealed_folder(folder) as staging:
        save_tensors(weights, staging / WEIGHTS, {"format": "pt"})
        (staging / CONFIG).write_text(to_json(config))
        tokenizer.save_pretrained(staging)
        card = model_card(run=run, revision=revision, metrics=metrics, targets=config["target_modules"])
        (staging / "README.md").write_text(card)
    return sha256_of(folder / WEIGHTS)


def verify_adapter(folder: Path) -> None:
    """Compare every file of an adapter folder with its manifest, which must list weights and config.

    Raises
    ------
    AdapterDamaged
        As verify_folder; or a file that an adapter needs is not listed.
    """
    expected = verify_folder(folder)
    for name in (WEIGHTS, CONFIG):
        if name not in expected:
            raise AdapterDamaged(f"{MANIFEST} of {folder} does not list {name}", file=name)


def verify_folder(folder: Path) -> set[str]:
    """Compare every file of an exported folder with its manifest, and return their names.

    Raises
    ------
    AdapterDamaged
        There is no readable manifest, or a file is missing or differs; fact `file` names it.
    """
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        expected = {name: (entry["sha256"], entry["bytes"]) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise AdapterDamaged(f"{folder} has no readable {MANIFEST}", file=MANIFEST) from exc
    for name, wanted in expected.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise AdapterDamaged(f"{name} is missing in {folder}", file=name)
        found = entry_of(path)
        if (found["sha256"], found["bytes"]) != wanted:
            raise AdapterDamaged(f"{name} in {folder} differs from its manifest", file=name)
    return set(expected)


def base_of(folder: Path) -> BaseModelSpec:
    """The base model that an adapter's config names.

    Raises
    ------
    AdapterDamaged
        There is no readable config, or it names none.
    """
    try:
        config = json.loads((folder / CONFIG).read_text())
        base, revision = config["base_model_name_or_path"], config.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise AdapterDamaged(f"{folder} has no readable {CONFIG} that names a base model", file=CONFIG) from exc
    return BaseModelSpec(base, base, revision)


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put a verified adapter on its base model, by peft's own loader, for inference.

    Raises
    ------
    AdapterDamaged
        As verify_adapter; or the base model has no place for some of its weights, or lacks some.
    """
    verify_adapter(folder)
    try:
        with no_false_alarm():
            adapted = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError) as exc:  # shapes that differ, modules that are not there
        raise AdapterDamaged(f"the adapter in {folder} does not fit this base model", file=WEIGHTS) from exc
    stored = load_file(folder / WEIGHTS)
    loaded = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if stored.keys() != loaded.keys():
        raise AdapterDamaged(f"the adapter in {folder} does not fit this base model", file=WEIGHTS)
    adapted.eval()
    return adapted


def check_servable(lora: LoraConfig) -> None:
    """Raise NotServable unless vLLM would take an adapter of this config."""
    faults = {
        f"rank {lora.r} is above {VLLM_RANKS[-1]}": lora.r > VLLM_RANKS[-1],
        f"bias is {lora.bias!r}": lora.bias != "none" or lora.lora_bias,
        "DoRA is on": lora.use_dora,
        "whole modules are saved": bool(lora.modules_to_save),
    }
    if broken := [fault for fault, present in faults.items() if present]:
        raise NotServable(f"vLLM cannot serve this adapter: {'; '.join(broken)}", faults=broken)


def _weights(model: PeftModel) -> dict[str, Tensor]:
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise NotFinite(f"the adapter weight {name} is not finite", weight=name)
    # B starts at zero, so a delta is zero exactly as long as its B is.
    if not any(tensor.any() for name, tensor in weights.items() if ".lora_B." in name):
        raise NothingLearned("nothing was learned: every delta of the adapter is zero")
    return weights


def _complete(lora: LoraConfig, *, base: str, revision: str | None) -> dict[str, Any]:
    """The config with its base filled in and every set sorted: peft's own order follows PYTHONHASHSEED."""
    config: dict[str, Any] = lora.to_dict()  # type: ignore[no-untyped-call]
    config |= {"base_model_name_or_path": base, "revision": revision, "inference_mode": True}
    return {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
