import json

import pytest

from core import leases
from core.db.models import Job
from core.domain.lifecycle import JobState
from core.jobs import JobKind, Nudge
from tests.api.conftest import LINES, PRIOR, Api

KINDS = pytest.mark.parametrize("kind", ["annotation", "training"])


@KINDS
def test_a_job_is_accepted_shown_and_nudged_for(api: Api, kind: str) -> None:
    job_id = getattr(api, f"{kind}_job")()
    assert api.nudges == [Nudge(JobKind(kind), job_id)]
    shown = api.client.get(f"/v1/{kind}-jobs/{job_id}")
    job = shown.json()
    assert (job["id"], job["kind"], job["state"]) == (job_id, kind, "queued")
    assert job["counts"]["done"] == 0
    assert job["progress"]["fraction"] == 0
    assert shown.headers["retry-after"] == "1"
    assert job["links"]["self"] == f"/v1/{kind}-jobs/{job_id}"
    assert [one["id"] for one in api.client.get(f"/v1/{kind}-jobs").json()["items"]] == [job_id]
    assert api.client.get(f"/v1/{kind}-jobs?state=failed").json()["items"] == []


@KINDS
def test_polling_is_cheap_while_nothing_changes(api: Api, kind: str) -> None:
    url = f"/v1/{kind}-jobs/{getattr(api, f'{kind}_job')()}"
    etag = api.client.get(url).headers["etag"]
    same = api.client.get(url, headers={"If-None-Match": f'"other", W/{etag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert same.headers["retry-after"] == "1"
    api.client.post(f"{url}/cancel")
    changed = api.client.get(url, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.json()["state"] == "cancelled"
    assert "retry-after" not in changed.headers


@KINDS
def test_cancelling_retrying_and_deleting(api: Api, kind: str) -> None:
    job_id = getattr(api, f"{kind}_job")()
    url = f"/v1/{kind}-jobs/{job_id}"
    assert api.client.delete(url).status_code == 409
    assert api.client.post(f"{url}/retry").status_code == 409
    assert api.client.post(f"{url}/cancel").json()["state"] == "cancelled"
    assert api.client.post(f"{url}/cancel").json()["state"] == "cancelled"
    retried = api.client.post(f"{url}/retry")
    assert retried.status_code == 202
    assert (retried.json()["retry_of"], retried.json()["state"]) == (job_id, "queued")
    assert retried.headers["location"] == f"/v1/{kind}-jobs/{retried.json()['id']}"
    assert api.client.delete(url).status_code == 204
    assert api.client.get(url).status_code == 404


@KINDS
def test_a_job_at_work_is_told_to_stop(api: Api, kind: str) -> None:
    job_id = getattr(api, f"{kind}_job")()
    with api.database.transaction() as uow:
        leases.claim(uow, job_id=job_id, lease=60, max_attempts=3)
    assert api.client.post(f"/v1/{kind}-jobs/{job_id}/cancel").json()["state"] == "cancelling"


@KINDS
def test_a_failed_job_says_why(api: Api, kind: str) -> None:
    job_id = getattr(api, f"{kind}_job")()
    with api.database.transaction() as uow:
        claim = leases.claim(uow, job_id=job_id, lease=60, max_attempts=3)
        assert claim is not None
        error = {"code": "worker_lost", "message": "three workers died", "attempts": 3}
        leases.finish(uow, claim, JobState.FAILED, error=error)
    job = api.client.get(f"/v1/{kind}-jobs/{job_id}").json()
    assert (job["state"], job["error"]) == ("failed", error)
    assert api.client.post(f"/v1/{kind}-jobs/{job_id}/cancel").json()["code"] == "illegal_transition"


def test_one_kind_is_not_the_other(api: Api) -> None:
    annotation, training = api.annotation_job(), api.training_job()
    assert api.client.get(f"/v1/training-jobs/{annotation}").status_code == 404
    assert api.client.get(f"/v1/annotation-jobs/{training}/export").status_code == 404
    assert api.client.get(f"/v1/annotations?job_id={training}").status_code == 404


def test_a_dry_run_of_labelling_shows_the_plan_and_makes_nothing(api: Api) -> None:
    body = {"dataset_id": api.dataset(), "prior_id": api.prior(), "teacher": "rule", "dry_run": True}
    plan = api.client.post("/v1/annotation-jobs", json=body)
    assert plan.status_code == 200
    assert (plan.json()["items"], plan.json()["by_split"]) == (2, {"train": 2})
    assert ["Sun shines." in prompt[-1]["content"] for prompt in plan.json()["prompts"]] == [True, False]
    assert (plan.json()["estimated_from"], plan.json()["tokens"], plan.json()["usd"]) == (2, 0, 0.0)
    assert plan.json()["silent_patterns"] == ["rules[0].causes[0]"]  # no eagles in there
    assert api.client.get("/v1/annotation-jobs").json()["items"] == []
    assert api.nudges == []


def test_a_dry_run_of_training_is_a_job_that_only_plans(api: Api) -> None:
    body = {"dataset_id": api.dataset(), "base_model": "builtin:small", "config": {"method": "sft"}, "dry_run": True}
    accepted = api.client.post("/v1/training-jobs", json=body)
    assert accepted.status_code == 202
    assert accepted.json()["request"]["dry_run"] is True


def test_a_training_is_told_all_it_was_asked(api: Api) -> None:
    dataset_id = api.dataset()
    api.client.post(f"/v1/datasets/{dataset_id}/examples?split=ood", content=b'{"input": "a", "target": "b"}')
    labels = api.annotation_job(dataset_id)
    body = {
        "name": "run 1",
        "dataset_id": dataset_id,
        "base_model": "builtin:small",
        "labels": {"annotation_jobs": [labels]},
        "eval_splits": ["ood"],
        "config": {"method": "cat", "lora_rank": 8, "objective": {"form": "hinge"}},
    }
    early = api.client.post("/v1/training-jobs", json=body)
    assert (early.status_code, early.json()["code"]) == (409, "labels_not_ready")
    api.label(labels)
    job = api.client.post("/v1/training-jobs", json=body).json()
    assert job["name"] == "run 1"
    request = job["request"]
    assert (request["base_model"], request["base_revision"]) == ("builtin:small", None)
    assert "source" not in str(request)  # a path on our disks, perhaps
    assert request["config"]["lora_rank"] == 8
    assert request["config"]["lora_alpha"] == 32  # defaults are written out
    assert request["config"]["objective"]["form"] == "hinge"
    assert (request["labels"]["annotation_jobs"], request["eval_splits"]) == ([labels], ["ood"])
    assert len(job["labels_sha256"]) == 64
    with api.database.reading() as session:
        assert session.get_one(Job, job["id"]).tenant_id == "acme"


def test_labels_are_counted_listed_and_exported(api: Api) -> None:
    job_id = api.annotation_job()
    pending = api.client.get("/v1/annotations", params={"job_id": job_id}).json()["items"]
    assert [item["outcome"] for item in pending] == [None, None]
    api.label(job_id)
    job = api.client.get(f"/v1/annotation-jobs/{job_id}").json()
    assert (job["state"], job["progress"]["fraction"]) == ("succeeded", 1.0)
    assert job["counts"] == {"total": 2, "done": 2, "outcomes": {"labelled": 1, "empty": 1}}

    items = api.client.get("/v1/annotations", params={"job_id": job_id}).json()["items"]
    assert [(item["example_id"], item["outcome"]) for item in items] == [("a", "labelled"), ("b", "empty")]
    [relation] = items[0]["relations"]
    text = items[0]["input"] + items[0]["target"]
    for phrase in (relation["effect"], *relation["causes"]):
        assert text[phrase["start"] : phrase["end"]] == phrase["quote"]
    assert items[0]["unresolved"][0]["reason"] == "not_found"
    assert items[1]["detail"] == "nothing was found"

    def ids(**query: str) -> list[str]:
        found = api.client.get("/v1/annotations", params={"job_id": job_id, **query}).json()["items"]
        return [item["example_id"] for item in found]

    assert ids(outcome="empty") == ["b"]
    assert ids(unresolved="true") == ["a"]
    first = api.client.get("/v1/annotations", params={"job_id": job_id, "limit": 1}).json()
    assert ids(cursor=first["next"]) == ["b"]

    exported = api.client.get(f"/v1/annotation-jobs/{job_id}/export")
    assert exported.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in exported.text.splitlines()]
    assert [len(line["relations"]) for line in lines] == [1, 0]
    assert api.client.get(f"/v1/annotation-jobs/{job_id}/export?split=ood").content == b""


def test_an_export_can_be_posted_back_and_trained_on(api: Api) -> None:
    job_id = api.annotation_job()
    api.label(job_id)
    exported = api.client.get(f"/v1/annotation-jobs/{job_id}/export").content
    copy = api.client.post("/v1/datasets", json={"name": "copy"}).json()["id"]
    posted = api.client.post(f"/v1/datasets/{copy}/examples", content=exported).json()
    assert (posted["stored"], posted["relations"]) == (2, 1)
    again = api.client.post(f"/v1/datasets/{copy}/examples", content=exported).json()
    assert (again["stored"], again["unchanged"]) == (0, 2)
    body = {"dataset_id": copy, "base_model": "builtin:small", "labels": {"dataset": True}}
    assert api.client.post("/v1/training-jobs", json=body).status_code == 202


def test_jobs_come_in_pages(api: Api) -> None:
    dataset_id = api.dataset(LINES)
    prior_id = api.client.post("/v1/priors", json=PRIOR).json()["id"]
    body = {"dataset_id": dataset_id, "prior_id": prior_id, "teacher": "rule"}
    made = [api.client.post("/v1/annotation-jobs", json=body).json()["id"] for _ in range(3)]
    first = api.client.get("/v1/annotation-jobs?limit=2").json()
    second = api.client.get("/v1/annotation-jobs", params={"limit": 2, "cursor": first["next"]}).json()
    assert [job["id"] for job in first["items"] + second["items"]] == sorted(made, reverse=True)
