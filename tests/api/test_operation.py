"""Health, metrics, logs, and what a bug of ours looks like from outside."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from core import datasets
from core.db.session import Database
from core.errors import Unavailable
from tests.api.conftest import Api


def test_alive_and_ready(api: Api) -> None:
    for path in ("/healthz", "/readyz"):
        answer = api.as_(None).get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_not_ready_without_a_broker_but_alive(make_api: Callable[..., Api]) -> None:
    def away() -> None:
        raise Unavailable("the broker cannot be reached")

    api = make_api(reach_broker=away)
    answer = api.client.get("/readyz")
    assert (answer.status_code, answer.json()["code"], answer.json()["what"]) == (503, "unavailable", "broker")
    assert answer.headers["retry-after"] == "5"
    assert api.client.get("/healthz").status_code == 200


def test_not_ready_without_a_database_but_alive(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    away = Database("postgresql+psycopg://postgres@127.0.0.1:1/none")
    monkeypatch.setattr(api.database, "engine", away.engine)
    monkeypatch.setattr(api.database, "_sessions", away._sessions)
    answer = api.client.get("/readyz")
    assert (answer.status_code, answer.json()["what"]) == (503, "database")
    assert api.client.get("/v1/datasets").status_code == 503
    assert api.client.get("/healthz").status_code == 200


def test_metrics_count_requests_by_template_and_jobs_by_state(make_api: Callable[..., Api]) -> None:
    api = make_api(epochs=5)
    dataset_id = api.dataset()
    api.annotation_job(dataset_id)
    api.client.get(f"/v1/datasets/{dataset_id}")
    api.client.get("/v1/datasets/ds_none")
    api.client.get("/nothing/here")
    text = api.as_(None).get("/metrics").text
    path = 'path="/v1/datasets/{dataset_id}"'
    assert f'causeway_requests_total{{method="GET",{path},status="200"}} 1.0' in text
    assert f'causeway_requests_total{{method="GET",{path},status="404"}} 1.0' in text
    assert 'path="unmatched",status="404"' in text
    assert f'causeway_request_seconds_count{{method="GET",{path}}} 2.0' in text
    assert 'causeway_jobs{kind="annotation",state="queued"} 1.0' in text
    assert dataset_id not in text


def test_a_request_is_logged_without_what_it_carries(api: Api) -> None:
    secret, text = api.client.headers["Authorization"].split()[1], "a secret diagnosis"
    with structlog.testing.capture_logs() as lines:
        dataset_id = api.client.post("/v1/datasets", json={"name": text}).json()["id"]
        api.client.get(f"/v1/datasets/{dataset_id}/examples", params={"split": "diagnosis"})
        api.client.post(f"/v1/datasets/{dataset_id}/examples", content=f'{{"{text}": 1}}')
        api.client.get("/healthz")
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/v1/datasets", 201),
        ("GET", "/v1/datasets/{dataset_id}/examples", 200),
        ("POST", "/v1/datasets/{dataset_id}/examples", 422),
    ]
    assert "diagnosis" not in str(lines)
    assert secret not in str(lines)
    assert all(type(line["status"]) is int for line in lines)


def test_a_request_keeps_its_id(api: Api) -> None:
    named = api.client.get("/healthz", headers={"X-Request-Id": "trace-1"})
    assert named.headers["x-request-id"] == "trace-1"
    made = api.client.get("/healthz", headers={"X-Request-Id": "no good\tname"}).headers["x-request-id"]
    assert made != api.client.get("/healthz").headers["x-request-id"]


def test_a_bug_tells_the_client_nothing_and_the_log_its_place(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret diagnosis")

    monkeypatch.setattr(datasets, "list_datasets", bug)
    with structlog.testing.capture_logs() as lines:
        answer = api.client.get("/v1/datasets")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "diagnosis" not in answer.text
    assert answer.headers["x-request-id"]
    assert [line["event"] for line in lines] == ["bug", "request"]
    assert lines[0]["log_level"] == "error"
    assert lines[1]["status"] == 500
    assert logging.getLevelName(lines[0]["log_level"].upper()) == logging.ERROR


def test_what_a_failed_commit_undid_was_never_confirmed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI ends dependencies after the response unless told otherwise; then this would be a 201."""

    def fail(*_: Any) -> None:
        raise Unavailable("the database went away")

    with monkeypatch.context() as patch:
        patch.setattr("sqlalchemy.orm.Session.commit", fail)
        assert api.client.post("/v1/datasets", json={"name": "x"}).status_code == 503
    assert api.client.get("/v1/datasets").json()["items"] == []


def test_browsers_of_named_origins_may_ask(sqlite_api: Api) -> None:
    answer = sqlite_api.client.options(
        "/v1/datasets", headers={"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET"}
    )
    assert "access-control-allow-origin" not in answer.headers
