"""Training jobs: what is refused, what is pinned, and the folder that the trainer gets."""

import json
from pathlib import Path
from typing import Any

import pytest

from core import annotation_items, leases, training_runs, trainings
from core.db.models import ExampleRow, Job
from core.db.session import Database
from core.domain.lifecycle import JobState
from core.domain.run_folder import example_from_json, run_from_json
from core.domain.training import Method, TrainingConfig, Tuning
from core.errors import Conflict, InvalidInput, LabelsChanged, LabelsNotReady, NotFound, NoUsableRelations
from core.job_store import cancel_job
from core.jobs import JobKind
from core.labels import DemonstrationSource, LabelSource
from tests import scenes


def _asked(dataset_id: str, **changed: Any) -> dict[str, Any]:
    return {
        "tenant_id": scenes.TENANT,
        "dataset_id": dataset_id,
        "base": scenes.BASE,
        "config": TrainingConfig(method=Method.CAT),
        **changed,
    }


def _annotated(database: Database, dataset_id: str, *outcomes: str, cause_end: int = 3, **asked: Any) -> Job:
    """A finished annotation job that gave the first items of train these outcomes."""
    job = scenes.annotation_job_on(database, dataset_id, **asked)
    claim = scenes.claimed(database, job.id)
    with database.transaction() as uow:
        items = annotation_items.pending_items(uow.session, claim, after=0, limit=100)
        labels = {}
        for item, outcome in zip(items, outcomes, strict=False):
            labels[item.id] = scenes.label(outcome)
            for relation in labels[item.id]["relations"]:
                relation["causes"][0]["end"] = cause_end
        annotation_items.store_labels(uow, claim, labels, items_per_second=1)
        leases.finish(uow, claim, JobState.FAILED, error={"code": "teacher_unreachable", "message": "gone"})
    return job


def _laid_out(database: Database, job: Job, folder: Path) -> dict[str, list[dict[str, Any]]]:
    with database.reading() as session:
        training_runs.write_run_folder(session, scenes.row(database, job.id), folder)
    files = [folder / "train.jsonl", *(folder / "eval").iterdir()]
    return {file.stem: [json.loads(line) for line in file.read_text().splitlines()] for file in files}


def test_the_run_folder_says_what_was_asked_for(database: Database, tmp_path: Path) -> None:
    job = scenes.training_job(database, method=Method.CAT)
    splits = _laid_out(database, job, tmp_path / "run")
    assert [line["id"] for line in splits["train"]] == ["k0", "k1", "k2"]
    assert [line["id"] for line in splits["iid"]] == ["iid-0", "iid-1"]
    assert splits["train"][0]["relations"] == [scenes.RELATION]
    example_from_json(splits["train"][0])
    run = run_from_json(json.loads((tmp_path / "run" / "config.json").read_text()))
    assert (run.base, run.training, run.run_id) == (scenes.BASE, TrainingConfig(method=Method.CAT), job.id)
    assert run.data_sha256 == job.labels_sha256


def test_later_jobs_win_and_jobs_replace_the_datasets_own_relations(database: Database, tmp_path: Path) -> None:
    dataset_id = scenes.dataset(database, examples=4, relations=[scenes.RELATION])
    first = _annotated(database, dataset_id, "labelled", "labelled", "refused")
    second = _annotated(database, dataset_id, "labelled", "empty", cause_end=2)
    with database.transaction() as uow:
        job = trainings.submit(uow, **_asked(dataset_id, labels=LabelSource((first.id, second.id))))
        other_way = trainings.submit(uow, **_asked(dataset_id, labels=LabelSource((second.id, first.id))))
    train = _laid_out(database, job, tmp_path / "run")["train"]
    ends = [[relation["causes"][0]["end"] for relation in line["relations"]] for line in train]
    assert ends == [[2], [3], [], []]
    assert job.labels_sha256 != other_way.labels_sha256


def test_labels_are_pinned_when_the_job_is_submitted(database: Database, tmp_path: Path) -> None:
    job = scenes.training_job(database)
    same = scenes.training_job(database)
    assert job.labels_sha256 == same.labels_sha256
    scenes.add_examples(database, job.dataset_id, examples=4, split="more")
    _laid_out(database, job, tmp_path / "before")  # another split changes nothing
    with database.transaction() as uow:
        uow.session.execute(
            ExampleRow.__table__.update().where(ExampleRow.dataset_id == job.dataset_id).values(relations=[])
        )
    with pytest.raises(LabelsChanged):
        _laid_out(database, job, tmp_path / "after")
    _laid_out(database, job, tmp_path / "before")  # whole already: a run that goes on keeps its data


def test_a_folder_that_was_left_half_written_is_written_again(sqlite: Database, tmp_path: Path) -> None:
    job = scenes.training_job(sqlite)
    _laid_out(sqlite, job, tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    (tmp_path / "run" / "train.jsonl").write_text('{"id": "k')
    assert len(_laid_out(sqlite, job, tmp_path / "run")["train"]) == 3


@pytest.mark.parametrize(
    ("changed", "error", "field"),
    [
        ({"dataset_id": "ds_nothing"}, NotFound, "dataset_id"),
        ({"tenant_id": "other"}, NotFound, "dataset_id"),
        ({"train_split": "nothing"}, InvalidInput, "train_split"),
        ({"train_split": "../etc"}, InvalidInput, "train_split"),
        ({"eval_splits": ["nothing"]}, InvalidInput, "eval_splits"),
        ({"eval_splits": ["train"]}, InvalidInput, "eval_splits"),
        ({"labels": LabelSource(("an_nothing",))}, NotFound, None),
        ({"config": TrainingConfig(tuning=Tuning.FULL)}, InvalidInput, "config.tuning"),
        ({"config": TrainingConfig(merge=True)}, InvalidInput, "config.merge"),
        ({"config": TrainingConfig(best_metric="test.accuracy", evaluate_every=5)}, InvalidInput, "config.best_metric"),
    ],
)
def test_what_is_refused_at_submit(database: Database, changed: dict, error: type, field: str | None) -> None:
    dataset_id = scenes.dataset(database, relations=[scenes.RELATION])
    with pytest.raises(error) as caught, database.transaction() as uow:
        trainings.submit(uow, **{**_asked(dataset_id), **changed})
    assert caught.value.facts.get("field") == field
    assert scenes.promised(database) == []


def test_cat_needs_a_relation_and_sft_does_not(database: Database) -> None:
    dataset_id = scenes.dataset(database)
    with pytest.raises(NoUsableRelations), database.transaction() as uow:
        trainings.submit(uow, **_asked(dataset_id))
    with database.transaction() as uow:
        trainings.submit(uow, **_asked(dataset_id, config=TrainingConfig(method=Method.SFT)))


def test_labels_must_be_finished_and_of_this_dataset(database: Database) -> None:
    dataset_id = scenes.dataset(database)
    unfinished = scenes.annotation_job_on(database, dataset_id)
    with pytest.raises(LabelsNotReady), database.transaction() as uow:
        trainings.submit(uow, **_asked(dataset_id, labels=LabelSource((unfinished.id,))))
    elsewhere = _annotated(database, scenes.dataset(database), "labelled")
    with pytest.raises(InvalidInput, match="another dataset"), database.transaction() as uow:
        trainings.submit(uow, **_asked(dataset_id, labels=LabelSource((elsewhere.id,))))


def test_labels_made_with_a_split_in_sight_are_not_judged_by_it(database: Database) -> None:
    dataset_id = scenes.dataset(database)
    for split in ("iid", "ood"):
        scenes.add_examples(database, dataset_id, examples=1, split=split)
    source = DemonstrationSource(3, ("train", "ood"))
    labels = LabelSource((_annotated(database, dataset_id, "labelled", demonstrations=source).id,))
    with database.transaction() as uow:
        trainings.submit(uow, **_asked(dataset_id, labels=labels, eval_splits=["iid"]))
        with pytest.raises(InvalidInput) as refused:
            trainings.submit(uow, **_asked(dataset_id, labels=labels, eval_splits=["iid", "ood"]))
        assert refused.value.facts["field"] == "eval_splits"
        trainings.submit(uow, **_asked(dataset_id, config=TrainingConfig(method=Method.SFT), eval_splits=["ood"]))
    # From now on it is evaluated, and no later job draws from it.
    later = scenes.annotation_job_on(database, dataset_id, demonstrations=source)
    assert later.request["demonstrations"]["splits"] == ["train"]


def test_a_retry_keeps_the_pinned_labels(database: Database) -> None:
    job = scenes.training_job(database)
    with pytest.raises(Conflict), database.transaction() as uow:
        trainings.retry(uow, tenant_id=scenes.TENANT, job_id=job.id)
    with database.transaction() as uow:
        cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.TRAINING, job_id=job.id)
        again = trainings.retry(uow, tenant_id=scenes.TENANT, job_id=job.id)
    assert (again.retry_of, again.labels_sha256, again.request) == (job.id, job.labels_sha256, job.request)


def test_events_become_history_and_progress(database: Database) -> None:
    job = scenes.training_job(database)
    claim = scenes.claimed(database, job.id)
    said = [
        {"type": "plan", "at": 1.0, "steps": 20, "tokens": 99},
        {"type": "step", "at": 2.0, "step": 10, "steps": 20, "loss": float("nan"), "eta_seconds": 5.0},
        {"type": "evaluation", "at": 3.0, "split": "iid", "step": 10, "metrics": {"accuracy": 0.5}},
        {"type": "state", "at": 4.0, "state": "succeeded"},  # not the trainer's to say
    ]
    with database.transaction() as uow:
        training_runs.record_events(uow, claim, said, cursor=123)
    now = scenes.row(database, job.id)
    assert (now.done, now.total, now.cursor, now.state) == (10, 20, 123, JobState.RUNNING)
    assert now.progress["loss"] is None
    assert now.progress["eta_seconds"] == 5.0
    assert now.progress["evaluations"] == {"iid": {"accuracy": 0.5}}
    kinds = [kind for kind, _ in scenes.told(database, job.id)]
    assert kinds == ["state", "state", "plan", "step", "evaluation"]
