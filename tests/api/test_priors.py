import json

import pytest
import yaml

from tests.api.conftest import PRIOR, Api


@pytest.mark.parametrize(
    ("content", "type_"),
    [
        (json.dumps(PRIOR), "application/json"),
        (json.dumps(PRIOR), "application/vnd.causeway+json; charset=utf-8"),
        (yaml.safe_dump(PRIOR), "application/yaml"),
        (yaml.safe_dump(PRIOR), "application/x-www-form-urlencoded"),  # what curl says when it is told nothing
    ],
)
def test_a_prior_is_taken_as_json_or_yaml(api: Api, content: str, type_: str) -> None:
    created = api.client.post("/v1/priors", content=content, headers={"Content-Type": type_})
    assert created.status_code == 201
    prior = created.json()
    assert (prior["name"], prior["version"]) == ("eagles", "1")
    shown = api.client.get(created.headers["location"]).json()
    assert shown["body"]["demonstrations"] == PRIOR["demonstrations"]
    assert shown["sha256"] == prior["sha256"]


def test_escaped_characters_of_json_are_not_read_as_yaml(api: Api) -> None:
    prior = PRIOR | {"instructions": "tab\t and 🦅"}
    location = api.client.post("/v1/priors", json=prior).headers["location"]
    assert api.client.get(location).json()["body"]["instructions"] == "tab\t and 🦅"


def test_the_same_again_is_the_same_and_another_content_is_a_conflict(api: Api) -> None:
    first = api.client.post("/v1/priors", json=PRIOR)
    same = api.client.post("/v1/priors", json=PRIOR)
    assert (same.status_code, same.json()["id"]) == (200, first.json()["id"])
    changed = api.client.post("/v1/priors", json=PRIOR | {"instructions": "Others."})
    assert (changed.status_code, changed.json()["field"]) == (409, "version")
    newer = api.client.post("/v1/priors", json=PRIOR | {"instructions": "Others.", "version": "2"})
    assert newer.status_code == 201
    listed = api.client.get("/v1/priors").json()["items"]
    assert [one["version"] for one in listed] == ["2", "1"]
    assert "body" not in listed[0]


def test_the_phrase_that_does_not_ground_is_named(api: Api) -> None:
    demonstration = {
        "input": "There are 20 bald eagles. ",
        "target": "20 eagles",
        "relations": [{"effect": "20 eagles", "causes": ["30 crowned eagles"]}],
    }
    refused = api.client.post("/v1/priors", json=PRIOR | {"demonstrations": [demonstration]})
    assert refused.status_code == 422
    problem = refused.json()
    assert (problem["code"], problem["phrase"]) == ("prior_not_grounded", "30 crowned eagles")
