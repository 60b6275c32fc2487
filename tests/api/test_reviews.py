import json
from typing import Any

import pytest
from httpx import Response

from tests.api.conftest import Api
from tests.api.test_nasty_values import NASTY, places, replaced

HUMANS = {"effect": {"start": 24, "end": 27}, "causes": [{"start": 4, "end": 10}]}


@pytest.fixture
def item(api: Api) -> dict[str, Any]:
    """A labelled annotation."""
    job_id = api.annotation_job()
    api.label(job_id)
    found: dict[str, Any] = api.client.get("/v1/annotations", params={"job_id": job_id}).json()["items"][0]
    return found | {"job_id": job_id, "url": f"/v1/annotations/{found['id']}"}


def put(api: Api, item: dict[str, Any], **body: Any) -> Response:
    sent = {"version": 1, "decision": "changed", "relations": [HUMANS]} | body
    return api.client.put(f"{item['url']}/review", json={k: v for k, v in sent.items() if v is not ...})


def test_a_review_is_stored_shown_and_exported(api: Api, item: dict[str, Any]) -> None:
    assert (item["version"], item["review"]) == (1, None)
    answer = put(api, item)
    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] == '"2"'
    reviewed = answer.json()
    assert reviewed["version"] == 2
    assert reviewed["relations"] == item["relations"]  # what the teacher said stays what the teacher said
    review = reviewed["review"]
    assert (review["number"], review["decision"], review["relations"]) == (1, "changed", [HUMANS])
    assert review["key_id"].startswith("key_")
    assert api.client.get(item["url"]).json() == reviewed
    exported = api.client.get(f"/v1/annotation-jobs/{item['job_id']}/export").text.splitlines()
    assert json.loads(exported[0])["relations"] == [HUMANS]


def test_an_etag_tells_whether_anything_changed(api: Api, item: dict[str, Any]) -> None:
    etag = api.client.get(item["url"]).headers["etag"]
    same = api.client.get(item["url"], headers={"If-None-Match": etag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    put(api, item)
    assert api.client.get(item["url"], headers={"If-None-Match": etag}).status_code == 200


def test_a_stale_review_is_a_conflict_that_names_the_version(api: Api, item: dict[str, Any]) -> None:
    assert put(api, item, decision="accepted", relations=...).status_code == 200
    stale = put(api, item)
    assert stale.status_code == 409
    assert stale.json()["version"] == 2
    assert put(api, item, version=2).status_code == 200
    history = api.client.get(f"{item['url']}/reviews", params={"limit": 1}).json()
    rest = api.client.get(f"{item['url']}/reviews", params={"limit": 1, "cursor": history["next"]}).json()
    assert [one["decision"] for one in history["items"] + rest["items"]] == ["accepted", "changed"]
    assert rest["next"] is None


def test_only_what_is_reviewed(api: Api, item: dict[str, Any]) -> None:
    put(api, item)

    def ids(**query: str) -> list[str]:
        found = api.client.get("/v1/annotations", params={"job_id": item["job_id"], **query}).json()["items"]
        return [one["example_id"] for one in found]

    assert (ids(), ids(reviewed="true"), ids(reviewed="false")) == (["a", "b"], ["a"], ["b"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"relations": ...}, "relations"),
        ({"decision": "accepted"}, "relations"),
        ({"decision": "liked"}, "decision"),
        ({"version": "1"}, "version"),
        (
            {"relations": [HUMANS, {"effect": {"start": 24, "end": 28}, "causes": [{"start": 0, "end": 3}]}]},
            "relations[1]",
        ),
        ({"relations": [{"effect": {"start": 0, "end": 3}, "causes": [{"start": 24, "end": 27}]}]}, "relations[0]"),
        ({"relations": [{"effect": {"start": 3, "end": 3}, "causes": [{"start": 0, "end": 1}]}]}, "relations[0]"),
        ({"relations": [{"effect": {"start": 3, "end": 4}, "causes": []}]}, "relations[0].causes"),
        ({"who": "me"}, "who"),
    ],
)
def test_what_does_not_fit_names_its_field(api: Api, item: dict[str, Any], body: dict[str, Any], field: str) -> None:
    refused = put(api, item, **body)
    assert (refused.status_code, refused.json()["field"]) == (422, field), refused.text
    assert api.client.get(item["url"]).json()["version"] == 1


def test_too_many_relations_are_too_large(api: Api, item: dict[str, Any]) -> None:
    most = api.settings.limits.relations_per_example
    assert put(api, item, relations=[HUMANS] * (most + 1)).status_code == 413
    assert put(api, item, relations=[HUMANS] * most).status_code == 200


def test_what_waits_for_its_label_cannot_be_reviewed(api: Api) -> None:
    [first, _] = api.client.get("/v1/annotations", params={"job_id": api.annotation_job()}).json()["items"]
    assert first["version"] == 0
    refused = put(api, {"url": f"/v1/annotations/{first['id']}"}, version=0)
    assert refused.status_code == 409
    assert "no label yet" in refused.json()["detail"]


@pytest.mark.parametrize("unknown", ["0", "-1", "x", "1e3", str(2**63), "9" * 40, "\u0663"])
def test_an_id_that_nobody_has_is_not_found(api: Api, item: dict[str, Any], unknown: str) -> None:
    assert api.client.get(f"/v1/annotations/{unknown}").status_code == 404
    assert put(api, {"url": f"/v1/annotations/{unknown}"}).status_code == 404


def test_nasty_values(api: Api, item: dict[str, Any]) -> None:
    whole = {"version": 1, "decision": "changed", "relations": [HUMANS]}
    for place in places(whole):
        for nasty in NASTY:
            sent = json.dumps(replaced(whole, place, nasty))
            answer = api.client.put(f"{item['url']}/review", content=sent, headers={"Content-Type": "application/json"})
            assert answer.status_code < 500, (place, str(nasty)[:50], answer.text)
