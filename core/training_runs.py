"""A training job as its worker sees it: laid out as the run folder that the trainer reads, and told by its events."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from core.db.models import Job
from core.db.session import UnitOfWork
from core.db.text import storable
from core.domain.run_folder import BaseModelSpec, RunConfig, example_to_json, run_to_json
from core.domain.training import training_from_json
from core.errors import LabelsChanged
from core.job_store import record_change
from core.labels import LabelsDigest, LabelSource, example_of, labelled_examples
from core.leases import Claim, fence

_DATASET = LabelSource()
_TOLD = frozenset({"plan", "step", "evaluation", "checkpoint", "warning", "finished", "failed"})


def run_config(job: Job) -> RunConfig:
    """What the trainer is told."""
    request = job.request
    return RunConfig(
        base=BaseModelSpec(**request["base"]),
        training=training_from_json(request["config"]),
        data_sha256=job.labels_sha256 or "",
        run_id=job.id,
    )


def write_run_folder(session: Session, job: Job, folder: Path) -> None:
    """Lay out `folder` for the trainer, see core.domain.run_folder. One that is laid out already is left alone.

    Memory stays flat. config.json comes last: where it is, the rest is whole.

    Raises
    ------
    LabelsChanged
        When the labels are no longer those that the job was submitted with.
    """
    wanted = run_to_json(run_config(job))
    config = folder / "config.json"
    if config.exists() and json.loads(config.read_text()) == json.loads(json.dumps(wanted)):
        return
    (folder / "eval").mkdir(parents=True, exist_ok=True)
    asked = job.request["labels"]
    source = LabelSource(tuple(asked["annotation_jobs"]), asked.get("reviews_until", 0))  # jobs of before have none
    found = _write_split(session, job, job.request["train_split"], source, folder / "train.jsonl")
    if found != job.labels_sha256:
        raise LabelsChanged(
            "the examples or labels of the training split changed after the job was submitted",
            expected=job.labels_sha256,
            found=found,
        )
    for split in job.request["eval_splits"]:
        _write_split(session, job, split, _DATASET, folder / "eval" / f"{split}.jsonl")
    partial = config.with_suffix(".part")
    partial.write_text(json.dumps(wanted, indent=2))
    partial.replace(config)


def record_events(uow: UnitOfWork, claim: Claim, events: Sequence[Mapping[str, Any]], *, cursor: int) -> None:
    """Append what the trainer said to the job's history and show it as progress, as the claim's owner.

    Parameters
    ----------
    events
        Lines of events.jsonl. Those of a type that core.domain.run_folder does not know are left out.
    cursor
        Where in events.jsonl the next ones begin, in bytes.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's; nothing is written then.
    """
    job = fence(uow, claim)
    job.cursor = cursor
    for event in events:
        if event["type"] in _TOLD:
            _show(job, event)
            record_change(uow, job, event["type"], {k: v for k, v in event.items() if k != "type"})


def _show(job: Job, event: Mapping[str, Any]) -> None:
    """Bring an event into the job's visible progress."""
    said = storable({k: v for k, v in event.items() if k not in ("type", "at")})
    if event["type"] == "step":
        job.done, job.total = said["step"], said["steps"]
        job.progress = job.progress | said
    elif event["type"] == "plan":
        job.total = said["steps"]
        job.progress = job.progress | {"plan": said}
    elif event["type"] == "evaluation":
        evaluations = job.progress.get("evaluations", {}) | {said["split"]: said["metrics"]}
        job.progress = job.progress | {"evaluations": evaluations}


def _write_split(session: Session, job: Job, split: str, source: LabelSource, path: Path) -> str:
    """Write a split with its labels, and return their digest."""
    digest = LabelsDigest()
    with path.open("w", encoding="utf-8") as lines:
        for row, relations in labelled_examples(
            session, tenant_id=job.tenant_id, dataset_id=job.dataset_id, split=split, source=source
        ):
            digest.add(row, relations)
            lines.write(json.dumps(example_to_json(example_of(row, relations)), ensure_ascii=False) + "\n")
    return digest.hexdigest()
