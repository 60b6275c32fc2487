import gzip
import json

import pytest

from tests.api.conftest import LINES, Api


def test_a_dataset_from_beginning_to_end(api: Api) -> None:
    created = api.client.post("/v1/datasets", json={"name": "  cancer risk "})
    assert created.status_code == 201
    dataset = created.json()
    assert created.headers["location"] == f"/v1/datasets/{dataset['id']}"
    assert (dataset["name"], dataset["splits"], dataset["examples"]) == ("cancer risk", {}, 0)

    posted = api.client.post(f"{created.headers['location']}/examples", content=LINES)
    assert posted.status_code == 201
    assert posted.json() == {"stored": 2, "unchanged": 0, "relations": 0, "unresolved": {}, "malformed": 0}
    again = api.client.post(f"{created.headers['location']}/examples", content=LINES + LINES)
    assert (again.json()["stored"], again.json()["unchanged"]) == (0, 4)

    shown = api.client.get(created.headers["location"]).json()
    assert (shown["splits"], shown["examples"]) == ({"train": 2}, 2)
    assert api.client.get("/v1/datasets").json()["items"] == [shown]

    assert api.client.delete(created.headers["location"]).status_code == 204
    assert api.client.get(created.headers["location"]).status_code == 404
    assert api.client.post(f"{created.headers['location']}/examples", content=LINES).status_code == 404


def test_examples_come_in_pages_in_the_order_they_were_posted(api: Api) -> None:
    lines = b"".join(json.dumps({"id": f"{n}", "input": f"{n} ", "target": "x"}).encode() + b"\n" for n in range(7))
    dataset_id = api.dataset(lines)
    api.client.post(f"/v1/datasets/{dataset_id}/examples?split=ood", content=b'{"input": "a", "target": "b"}')
    seen: list[str] = []
    page = api.client.get(f"/v1/datasets/{dataset_id}/examples", params={"limit": 3, "split": "train"}).json()
    while True:
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        page = api.client.get(
            f"/v1/datasets/{dataset_id}/examples", params={"limit": 3, "split": "train", "cursor": page["next"]}
        ).json()
    assert seen == [str(n) for n in range(7)]
    everything = api.client.get(f"/v1/datasets/{dataset_id}/examples").json()
    assert [item["split"] for item in everything["items"]] == ["train"] * 7 + ["ood"]


def test_datasets_come_in_pages_newest_first(api: Api) -> None:
    made = [api.client.post("/v1/datasets", json={"name": str(n)}).json()["id"] for n in range(5)]
    first = api.client.get("/v1/datasets", params={"limit": 2}).json()
    second = api.client.get("/v1/datasets", params={"limit": 3, "cursor": first["next"]}).json()
    assert sorted(made, reverse=True) == [item["id"] for item in first["items"] + second["items"]]
    assert second["next"] is None
    # A cursor of one list is not one of another.
    assert api.client.get("/v1/priors", params={"cursor": first["next"]}).status_code == 422


def test_published_files_are_taken_with_their_relations_in_words(api: Api) -> None:
    line = {
        "input": "Weight: 4, Room size: 6 Answer: ",
        "target": "Low Risk",
        "important": [{"Low Risk": ["Weight: 4", "Height: 1"]}],
        "idx": 3,
    }
    dataset_id = api.dataset()
    url = f"/v1/datasets/{dataset_id}/examples?split=published"
    assert api.client.post(url, content=json.dumps(line)).status_code == 422
    posted = api.client.post(f"{url}&extra=ignore", content=json.dumps(line)).json()
    assert posted == {"stored": 1, "unchanged": 0, "relations": 1, "unresolved": {"not_found": 1}, "malformed": 0}
    [example] = api.client.get(url).json()["items"]
    assert example["relations"] == [{"effect": {"start": 32, "end": 40}, "causes": [{"start": 0, "end": 9}]}]
    assert example["unresolved"][0]["cause"] == "Height: 1"


def test_a_gzipped_upload_is_unpacked(api: Api) -> None:
    dataset_id = api.client.post("/v1/datasets", json={"name": "x"}).json()["id"]
    answer = api.client.post(
        f"/v1/datasets/{dataset_id}/examples", content=gzip.compress(LINES), headers={"Content-Encoding": "gzip"}
    )
    assert answer.json()["stored"] == 2


@pytest.mark.parametrize("kind", ["annotation", "training"])
def test_a_dataset_in_use_cannot_be_deleted(api: Api, kind: str) -> None:
    dataset_id = api.dataset()
    job_id = getattr(api, f"{kind}_job")(dataset_id)
    refused = api.client.delete(f"/v1/datasets/{dataset_id}")
    assert (refused.status_code, refused.json()["code"], refused.json()["job_id"]) == (409, "conflict", job_id)
    api.client.post(f"/v1/{kind}-jobs/{job_id}/cancel")
    assert api.client.delete(f"/v1/datasets/{dataset_id}").status_code == 204
    # The job keeps its history.
    assert api.client.get(f"/v1/{kind}-jobs/{job_id}").json()["dataset_id"] == dataset_id


def test_a_spool_leaves_nothing_behind(api: Api) -> None:
    dataset_id = api.dataset()
    api.client.post(f"/v1/datasets/{dataset_id}/examples", content=b"{")
    assert list(api.settings.storage.spool.iterdir()) == []
