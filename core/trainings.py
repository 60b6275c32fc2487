"""Training jobs: asked for with their labels pinned, and asked for again. How they run: core/training_runs.py."""

import re
from collections.abc import Sequence
from dataclasses import asdict, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.db.models import ExampleRow, Job
from core.db.session import UnitOfWork
from core.db.text import storable_text
from core.domain.lifecycle import TERMINAL, JobState
from core.domain.run_folder import BaseModelSpec
from core.domain.training import Method, TrainingConfig, Tuning
from core.errors import InvalidInput, LabelsNotReady, NoUsableRelations
from core.job_store import add_job, dataset_for_job, get_job, job_to_retry
from core.jobs import JobKind
from core.labels import LabelsDigest, LabelSource, labelled_examples, last_review

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")  # what a split must look like to name a file
_DATASET = LabelSource()


def submit(
    uow: UnitOfWork,
    *,
    tenant_id: str,
    dataset_id: str,
    base: BaseModelSpec,
    config: TrainingConfig,
    labels: LabelSource = _DATASET,
    train_split: str = "train",
    eval_splits: Sequence[str] = (),
    dry_run: bool = False,
    name: str = "",
) -> Job:
    """Queue a training run on the labels as they are now; with `dry_run` it stops after planning.

    Raises
    ------
    NotFound
        When the dataset or an annotation job is unknown.
    LabelsNotReady
        When an annotation job is not finished.
    InvalidInput
        When the run would end in a whole model, a split has no examples, the training split is also evaluated, the
        best checkpoint is judged by a split that is not, or a job labelled another dataset, or with examples of an
        evaluated split in its teacher's sight.
    NoUsableRelations
        When method is cat and no training example has a relation.
    """
    if config.merge or config.tuning is Tuning.FULL:
        raise InvalidInput(
            'a job publishes an adapter: merge and tuning "full" are for python -m trainer on its own',
            field="config.merge" if config.merge else "config.tuning",
        )
    session = uow.session
    dataset_for_job(session, tenant_id=tenant_id, dataset_id=dataset_id)
    for job_id in labels.annotation_jobs:
        _check_source(session, tenant_id, dataset_id, job_id, eval_splits)
    if train_split in eval_splits:
        raise InvalidInput(f"the split {train_split!r} cannot be trained on and evaluated", field="eval_splits")
    judged_by = config.best_metric.rpartition(".")[0]
    if judged_by and judged_by not in eval_splits:
        raise InvalidInput(
            f"the best checkpoint is to be chosen on {judged_by!r}: name that split in eval_splits",
            field="config.best_metric",
        )
    for field, split in [("train_split", train_split), *(("eval_splits", split) for split in eval_splits)]:
        _check_split(session, tenant_id, dataset_id, field, split)
    labels = replace(labels, reviews_until=last_review(session, tenant_id=tenant_id))
    pinned, related = _pin(session, tenant_id, dataset_id, train_split, labels)
    if config.method is Method.CAT and related == 0:
        raise NoUsableRelations(
            "cat needs causal relations, and no training example has one: name a finished annotation job in labels",
            field="labels",
        )
    request = {
        "name": storable_text(name),
        "base": asdict(base),
        "config": asdict(config),
        "labels": {"annotation_jobs": list(labels.annotation_jobs), "reviews_until": labels.reviews_until},
        "train_split": train_split,
        "eval_splits": list(dict.fromkeys(eval_splits)),
        "dry_run": dry_run,
    }
    return add_job(
        uow,
        tenant_id=tenant_id,
        kind=JobKind.TRAINING,
        dataset_id=dataset_id,
        request=request,
        labels_sha256=pinned,
    )


def retry(uow: UnitOfWork, *, tenant_id: str, job_id: str) -> Job:
    """A new job with the request, and the pinned labels, of a failed or cancelled one.

    Raises
    ------
    NotFound, Conflict
        As job_store.job_to_retry; NotFound also when the dataset was deleted.
    """
    old = job_to_retry(uow.session, tenant_id=tenant_id, kind=JobKind.TRAINING, job_id=job_id)
    dataset_for_job(uow.session, tenant_id=tenant_id, dataset_id=old.dataset_id)
    return add_job(
        uow,
        tenant_id=tenant_id,
        kind=JobKind.TRAINING,
        dataset_id=old.dataset_id,
        request=dict(old.request),
        retry_of=old.id,
        labels_sha256=old.labels_sha256,
    )


def _pin(session: Session, tenant_id: str, dataset_id: str, split: str, source: LabelSource) -> tuple[str, int]:
    """The digest of a split's labels, and how many examples have any."""
    digest, related = LabelsDigest(), 0
    for row, relations in labelled_examples(
        session, tenant_id=tenant_id, dataset_id=dataset_id, split=split, source=source
    ):
        digest.add(row, relations)
        related += bool(relations)
    return digest.hexdigest(), related


def _check_source(session: Session, tenant_id: str, dataset_id: str, job_id: str, eval_splits: Sequence[str]) -> None:
    job = get_job(session, tenant_id=tenant_id, kind=JobKind.ANNOTATION, job_id=job_id)
    if job.dataset_id != dataset_id:
        raise InvalidInput(f"job {job_id} labelled another dataset, {job.dataset_id}", field="labels", id=job_id)
    if JobState(job.state) not in TERMINAL:
        raise LabelsNotReady(
            f"annotation job {job_id} is {job.state}: wait for it, or cancel it to use the labels so far",
            id=job_id,
            state=job.state,
        )
    shown = job.request.get("demonstrations") or {"splits": ()}
    for split in shown["splits"]:
        if split in eval_splits:
            raise InvalidInput(
                f"the teacher of job {job_id} was shown reviewed examples of {split!r}: what was learned from its "
                "labels cannot be judged by that split",
                field="eval_splits",
                id=job_id,
            )


def _check_split(session: Session, tenant_id: str, dataset_id: str, field: str, split: str) -> None:
    if not _FILE_NAME.fullmatch(split):
        raise InvalidInput("a split is named by letters, digits, dots, dashes and underscores", field=field)
    query = select(ExampleRow.position).where(
        ExampleRow.tenant_id == tenant_id, ExampleRow.dataset_id == dataset_id, ExampleRow.split == split
    )
    if session.scalars(query.limit(1)).one_or_none() is None:
        raise InvalidInput(f"the dataset has no examples in the split {split!r}", field=field)
