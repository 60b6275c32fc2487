"""What a finished run leaves: an adapter, with `merge` a merged model too, or with full tuning a whole model.

Each is written whole or not at all, and then has to pass the gate (trainer.reload): what a fresh process loads answers
as what was trained.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel

from core.domain.run_folder import RunConfig, run_to_json
from core.domain.training import Tuning
from core.errors import NotFinite, OutOfMemory
from trainer.adapter import Metrics, export_adapter
from trainer.checkpoints import disk_errors
from trainer.memory import is_out_of_memory
from trainer.model import LoadedBase, weights_precision
from trainer.reload import check_reload
from trainer.sealed import MANIFEST, sealed_folder, sha256_of, to_json
from trainer.tensors import os_errors

ORIGIN = "causeway.json"  # in a whole model's folder: its run, the base's revision, the metrics


@dataclass(frozen=True, slots=True)
class Exported:
    """Sums as in core.domain.run_folder.TrainingResult; "" for what there is not."""

    adapter_sha256: str = ""
    model_sha256: str = ""


def export(
    model: PreTrainedModel | PeftModel,
    base: LoadedBase,
    folder: Path,
    *,
    run: RunConfig,
    metrics: Metrics,
    reload_check: bool = True,
) -> Exported:
    """Write what the run's configuration asks for into the run folder. With `merge` the model is merged in place.

    Raises
    ------
    NotFinite
        A weight is NaN or infinite.
    DiskFull, TrainingFailed
        It cannot be written. Nothing of it stays.
    NothingLearned, NotServable, ReloadFailed, ReloadDiffers
        The gate refused it. What was written is removed, as it is whatever else is raised.
    OutOfMemory
        Memory does not hold what merging or the gate needs.
    """
    with _memory_errors():
        if not isinstance(model, PeftModel):
            return Exported(model_sha256=_export_model(model, base, folder / "model", run, metrics, reload_check))
        adapter = folder / "adapter"
        sha256 = export_adapter(model, base.tokenizer, adapter, run=run, revision=base.revision, metrics=metrics)
        if reload_check:
            _pass_gate(model, adapter, run)
        if not run.training.merge:
            return Exported(sha256)
        with _removed_unless_passed(adapter):
            return Exported(sha256, _export_model(_merged(model), base, folder / "merged", run, metrics, reload_check))


def _export_model(
    model: PreTrainedModel,
    base: LoadedBase,
    folder: Path,
    run: RunConfig,
    metrics: Metrics,
    reload_check: bool,  # noqa: FBT001
) -> str:
    """Write a whole model; returns the sha256 of its manifest."""
    with disk_errors("the model", folder), os_errors(folder), sealed_folder(folder) as staging:
        model.save_pretrained(staging)
        base.tokenizer.save_pretrained(staging)
        origin = {"run": run_to_json(run), "base_revision": base.revision, "metrics": metrics}
        (staging / ORIGIN).write_text(to_json(origin))
    if reload_check:
        _pass_gate(model, folder, run)
    return sha256_of(folder / MANIFEST)


def _pass_gate(model: PreTrainedModel | PeftModel, folder: Path, run: RunConfig) -> None:
    four_bit = run.training.tuning is Tuning.QLORA
    with _removed_unless_passed(folder):
        check_reload(model, folder, base=run.base, precision=weights_precision(run.training), four_bit=four_bit)


@contextmanager
def _removed_unless_passed(folder: Path) -> Iterator[None]:
    """Whatever ends the block early, a refusal, a full disk or a bug: what has not passed must not look finished."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder)
        raise


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        if not is_out_of_memory(exc):
            raise
        raise OutOfMemory(
            "memory does not hold what exporting needs; run again with more of it free, which goes on from the last "
            "checkpoint"
        ) from exc


def _merged(model: PeftModel) -> PreTrainedModel:
    try:
        merged: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    except ValueError as exc:  # its own check of every merged weight
        raise NotFinite("merged with the adapter, a weight of the base model is not finite") from exc
    return merged
