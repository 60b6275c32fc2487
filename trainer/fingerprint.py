"""What a checkpoint belongs to: a run is only gone on with from its own."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from core.domain.run_folder import RunConfig
from core.errors import CheckpointMismatch
from trainer.checkpoints import run_of

_PACE = frozenset({"log_every", "checkpoint_every", "merge", "overflow_limit"})  # may change: the weights stay the same
# Settings that later versions brought, at the value that means what was done before: a run outlives such an upgrade.
_LATER = {"lora_rslora": False}


def fingerprint_of(run: RunConfig, folder: Path, base_revision: str | None, *, processes: int = 1) -> dict[str, str]:
    """Digests of a run's `config`, `base` and `data`, and its processes: what together decides its weights.

    Parameters
    ----------
    folder
        The run folder.
    base_revision
        That was loaded, which a branch's name does not tell.
    processes
        That train together: `batch_size` is per process.
    """
    training = {name: value for name, value in asdict(run.training).items() if _decides(name, value)}
    files = [folder / "train.jsonl"]
    if run.training.best_metric:  # that split decides which weights are kept
        files.append(folder / "eval" / f"{run.training.best_metric.rpartition('.')[0]}.jsonl")
    return {
        "config": _digest(training),
        "base": _digest([run.base.source, base_revision]),
        "data": _digest([_file_digest(path) for path in files]),
        "number of processes": str(processes),
    }


def require_same(checkpoint: Path, fingerprint: Mapping[str, str]) -> None:
    """Raise CheckpointMismatch naming what differs, unless the checkpoint was saved with this fingerprint."""
    saved = run_of(checkpoint)
    differs = [part for part in fingerprint if saved.get(part) != fingerprint[part]]
    if differs:
        raise CheckpointMismatch(
            f"the run folder's checkpoints were made with another {' and '.join(differs)}; put back what was there, or "
            "start again in a folder without them",
            checkpoint=checkpoint.name,
            differs=differs,
        )


def _decides(name: str, value: object) -> bool:
    return name not in _PACE and not (name in _LATER and value == _LATER[name])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
