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
_LATER_PARTS = frozenset({"base files"})  # of the fingerprint: a checkpoint without them is of the version before

# What is read of a weights file, so that a base of 14 GB takes no minutes: its first megabyte, which has the names and
# shapes of most files' tensors, and blocks spread over the rest. Another training, merge or precision changes them all.
# A change of one small tensor may lie between the blocks; up to 5 MiB a file is read whole.
_HEAD = 2**20
_BLOCK = 2**16
_BLOCKS = 64


def fingerprint_of(run: RunConfig, folder: Path, base_revision: str | None, *, processes: int = 1) -> dict[str, str]:
    """Digests of a run's `config`, `base` and `data`, and its processes: what together decides its weights.

    A base that is a local folder has no revision that would tell whether it was changed, so `base files` does.

    Parameters
    ----------
    folder
        The run folder.
    base_revision
        That was loaded, which a branch's name does not tell; None for a local folder.
    processes
        That train together: `batch_size` is per process.
    """
    training = {name: value for name, value in asdict(run.training).items() if _decides(name, value)}
    files = [folder / "train.jsonl"]
    if run.training.best_metric:  # that split decides which weights are kept
        files.append(folder / "eval" / f"{run.training.best_metric.rpartition('.')[0]}.jsonl")
    parts = {
        "config": _digest(training),
        "base": _digest([run.base.source, base_revision]),
        "data": _digest([_file_digest(path) for path in files]),
        "number of processes": str(processes),
    }
    if base_revision is None:
        parts["base files"] = _model_digest(Path(run.base.source).expanduser())
    return parts


def require_same(checkpoint: Path, fingerprint: Mapping[str, str]) -> None:
    """Raise CheckpointMismatch naming what differs, unless the checkpoint was saved with this fingerprint."""
    saved = run_of(checkpoint)
    asked = [part for part in fingerprint if part in saved or part not in _LATER_PARTS]
    differs = [part for part in asked if saved.get(part) != fingerprint[part]]
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


def _model_digest(folder: Path) -> str:
    """Of names, sizes and, as far as said above, content; not of times, so that a model may be copied and put back."""
    config = folder / "config.json"
    digests = [(config.name, config.stat().st_size, _file_digest(config))]
    digests += [(path.name, path.stat().st_size, _sampled(path)) for path in sorted(folder.glob("*.safetensors"))]
    return _digest(digests)


def _sampled(path: Path) -> str:
    size = path.stat().st_size
    if size <= _HEAD + _BLOCKS * _BLOCK:
        return _file_digest(path)
    last = size - _BLOCK  # where the last block begins, which ends with the file
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_HEAD))
        for number in range(_BLOCKS):
            file.seek(_HEAD + (last - _HEAD) * number // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
