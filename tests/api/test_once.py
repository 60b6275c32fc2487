from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.conftest import OTHER, PRIOR, Api

KEY = {"Idempotency-Key": "a-key"}


def requests(api: Api) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every creating POST."""
    dataset_id, prior_id = api.dataset(), api.prior()
    annotation = api.annotation_job(dataset_id)
    training = api.training_job(dataset_id)
    for job in (f"annotation-jobs/{annotation}", f"training-jobs/{training}"):
        api.client.post(f"/v1/{job}/cancel")
    return {
        "dataset": ("datasets", {"json": {"name": "x"}}),
        # Without an id: carried out again, it would be stored twice.
        "examples": (f"datasets/{dataset_id}/examples", {"content": b'{"input": "new", "target": "x"}\n'}),
        "prior": ("priors", {"json": PRIOR | {"version": "2"}}),
        "annotation": (
            "annotation-jobs",
            {"json": {"dataset_id": dataset_id, "prior_id": prior_id, "teacher": "rule"}},
        ),
        "training": (
            "training-jobs",
            {"json": {"dataset_id": dataset_id, "base_model": "builtin:small", "config": {"method": "sft"}}},
        ),
        "retry annotation": (f"annotation-jobs/{annotation}/retry", {}),
        "retry training": (f"training-jobs/{training}/retry", {}),
    }


@pytest.mark.parametrize(
    "what", ["dataset", "examples", "prior", "annotation", "training", "retry annotation", "retry training"]
)
def test_a_creating_request_sent_again_is_answered_again(api: Api, what: str) -> None:
    path, request = requests(api)[what]
    first = api.client.post(f"/v1/{path}", headers=KEY, **request)
    again = api.client.post(f"/v1/{path}", headers=KEY, **request)
    assert first.is_success, first.text
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = api.client.post("/v1/datasets", headers=KEY, json={"name": "another"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_a_changed_query_or_upload_is_another_request(api: Api) -> None:
    dataset_id = api.dataset()
    url = f"/v1/datasets/{dataset_id}/examples"
    line = b'{"input": "new", "target": "x"}\n'
    assert api.client.post(f"{url}?split=a", content=line, headers=KEY).status_code == 201
    for changed, content in ((f"{url}?split=b", line), (f"{url}?split=a", line + line)):
        assert api.client.post(changed, content=content, headers=KEY).json()["code"] == "idempotency_mismatch"


def test_a_refused_request_may_be_mended_under_the_same_key(api: Api) -> None:
    assert api.client.post("/v1/datasets", json={"name": ""}, headers=KEY).status_code == 422
    dataset_id = api.dataset()
    url = f"/v1/datasets/{dataset_id}/examples"
    conflict = api.client.post(url, content=b'{"id": "a", "input": "other", "target": "x"}', headers=KEY)
    assert conflict.status_code == 409
    assert api.client.post("/v1/datasets", json={"name": "x"}, headers=KEY).status_code == 201


def test_a_key_is_the_tenants_own(api: Api) -> None:
    theirs = api.as_(api.secret(OTHER))
    ours = api.client.post("/v1/datasets", json={"name": "x"}, headers=KEY).json()["id"]
    assert theirs.post("/v1/datasets", json={"name": "x"}, headers=KEY).json()["id"] != ours


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ä".encode()])
def test_a_key_that_is_none_is_refused(sqlite_api: Api, key: str | bytes) -> None:
    answer = sqlite_api.client.post("/v1/datasets", json={"name": "x"}, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["field"]) == (422, "Idempotency-Key")


def test_fifty_at_once_make_one_job(postgres_api: Api) -> None:
    api = postgres_api
    body = {"dataset_id": api.dataset(), "prior_id": api.prior(), "teacher": "rule"}

    def post(_: int) -> tuple[int, str]:
        answer = api.client.post("/v1/annotation-jobs", json=body, headers=KEY)
        return answer.status_code, answer.json().get("id", answer.json().get("code"))

    with ThreadPoolExecutor(50) as pool:
        seen = Counter(pool.map(post, range(50)))
    jobs = api.client.get("/v1/annotation-jobs").json()["items"]
    assert len(jobs) == 1
    assert set(seen) <= {(202, jobs[0]["id"]), (409, "conflict")}
    assert seen[202, jobs[0]["id"]] >= 1
    assert len(api.nudges) == 1
