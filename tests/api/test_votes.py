"""Votes asked for over HTTP, and annotations listed with the most doubtful first."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from annotator.wire import annotation_to_json
from core import annotation_items, leases
from core.domain.annotation import Annotation, Outcome
from core.settings import TeacherSettings
from tests.api.conftest import Api

LINES = b"\n".join(b'{"id": "%d", "input": "Sun shines. Warm? ", "target": "yes"}' % n for n in range(5))


@pytest.fixture
def api(api: Api) -> Api:
    """With a teacher that is asked over HTTP."""
    gpt = TeacherSettings(kind="openai", base_url="http://127.0.0.1:9/v1", model="m", prompt_price=2.0)
    settings = api.settings.model_copy(update={"teachers": api.settings.teachers | {"gpt": gpt}})
    api.app.state.services = replace(api.app.state.services, settings=settings)
    return api


def asked(api: Api, **changed: Any) -> Any:
    body = {"dataset_id": api.dataset(LINES), "prior_id": api.prior(), "teacher": "gpt", "votes": 3}
    return api.client.post("/v1/annotation-jobs", json=body | changed)


def voted(api: Api, *confidences: float | None) -> str:
    """A job whose first items have these confidences; the others wait for their label."""
    job_id: str = asked(api).json()["id"]
    with api.database.transaction() as uow:
        claim = leases.claim(uow, job_id=job_id, lease=60, max_attempts=3)
        assert claim is not None
        items = annotation_items.pending_items(uow.session, claim, after=0, limit=100)
        labels = {
            item.id: annotation_to_json(Annotation(Outcome.EMPTY)) | {"confidence": confidence}
            for item, confidence in zip(items, confidences, strict=False)
        }
        annotation_items.store_labels(uow, claim, labels, items_per_second=1.0)
    return job_id


def listed(api: Api, job_id: str, **query: Any) -> Any:
    answer = api.client.get("/v1/annotations", params={"job_id": job_id, "order": "confidence", **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_votes_are_part_of_the_request(api: Api) -> None:
    answer = asked(api)
    assert answer.status_code == 202
    assert answer.json()["request"]["votes"] == 3
    assert asked(api, votes=1, teacher="rule").status_code == 202


@pytest.mark.parametrize("wrong", [{"votes": 0}, {"votes": 11}, {"votes": "3"}, {"teacher": "rule"}])
def test_votes_that_make_no_sense_are_refused(api: Api, wrong: dict[str, Any]) -> None:
    refused = asked(api, **wrong)
    assert (refused.status_code, refused.json()["field"]) == (422, "votes")


def test_a_dry_run_counts_every_vote(api: Api) -> None:
    one, three = (asked(api, dry_run=True, votes=votes).json() for votes in (1, 3))
    assert three["tokens"] == 3 * one["tokens"] > 0
    assert three["usd"] == pytest.approx(3 * one["usd"], rel=1e-3)


def test_the_least_confident_come_first_page_by_page(api: Api) -> None:
    job_id = voted(api, 0.9, 0.1, 1 / 3, 0.1)
    everything = listed(api, job_id)["items"]
    assert [item["example_id"] for item in everything] == ["1", "3", "2", "0", "4"]
    assert [item["confidence"] for item in everything] == [0.1, 0.1, 1 / 3, 0.9, None]
    pages, cursor = [], None
    while cursor is not None or not pages:
        page = listed(api, job_id, limit=1, **({"cursor": cursor} if cursor else {}))
        pages += page["items"]
        cursor = page["next"]
    assert pages == everything
    assert [item["example_id"] for item in listed(api, job_id, outcome="empty")["items"]] == ["1", "3", "2", "0"]


def test_a_cursor_belongs_to_its_order(api: Api) -> None:
    job_id = voted(api, 0.5)
    by_example = api.client.get("/v1/annotations", params={"job_id": job_id, "limit": 1}).json()["next"]
    by_confidence = listed(api, job_id, limit=1)["next"]
    for cursor, order in ((by_example, "confidence"), (by_confidence, "example")):
        refused = api.client.get("/v1/annotations", params={"job_id": job_id, "cursor": cursor, "order": order})
        assert (refused.status_code, refused.json()["field"]) == (422, "cursor")


@pytest.mark.parametrize("place", ["", "0.5", "nan 1", "1e999 1", "-1 1", "0.5 1.5", f"0.5 {2**63}", "x y", 7, None])
def test_a_place_that_was_made_up_is_refused(api: Api, place: Any) -> None:
    made_up = base64.urlsafe_b64encode(json.dumps(["annotations-by-confidence", place]).encode()).decode()
    query = {"job_id": voted(api, 0.5), "order": "confidence", "cursor": made_up.rstrip("=")}
    assert api.client.get("/v1/annotations", params=query).status_code == 422
