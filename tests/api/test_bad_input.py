"""What users get wrong in bodies, queries and paths: the status, and what the problem must name."""

from typing import Any

import pytest
from sqlalchemy import func, select

from core.db.models import Job, PriorRow
from core.domain.training import TrainingConfig
from tests.api.conftest import PRIOR, Api
from tests.api.problems import assert_problem

BODIES: dict[str, tuple[str, Any, str, str, str]] = {
    "a dataset without a name": ("datasets", {}, "invalid_input", "name", "required"),
    "a dataset with an empty name": ("datasets", {"name": " "}, "invalid_input", "name", "at least 1"),
    "a dataset with a NUL in its name": ("datasets", {"name": "a\0"}, "invalid_input", "name", "NUL"),
    "a dataset with an unknown field": ("datasets", {"name": "a", "nam": 1}, "invalid_input", "nam", "unknown"),
    "a body that is not an object": ("datasets", [1], "invalid_input", "", "JSON object"),
    "a prior that does not ground": (
        "priors",
        PRIOR | {"demonstrations": [{**PRIOR["demonstrations"][0], "target": "35 hawks"}]},  # type: ignore[index,dict-item]
        "prior_not_grounded",
        "demonstrations[0]",
        "35 eagles",
    ),
    "a prior without instructions": ("priors", {"name": "a", "version": "1"}, "invalid_input", "", "instructions"),
    "a prior with a broken rule": (
        "priors",
        PRIOR | {"rules": [{"causes": ["("]}]},
        "invalid_input",
        "rules[0].causes[0]",
        "regular expression",
    ),
    "a teacher nobody knows": (
        "annotation-jobs",
        {"dataset_id": "DATASET", "prior_id": "PRIOR", "teacher": "gpt"},
        "invalid_input",
        "teacher",
        "known are rule",
    ),
    "a split nobody filled": (
        "annotation-jobs",
        {"dataset_id": "DATASET", "prior_id": "PRIOR", "teacher": "rule", "splits": ["dev"]},
        "invalid_input",
        "splits",
        "dev",
    ),
    "a base model nobody knows": (
        "training-jobs",
        {"dataset_id": "DATASET", "base_model": "llama"},
        "invalid_input",
        "base_model",
        "known are builtin:small",
    ),
    "cat without a single relation": (
        "training-jobs",
        {"dataset_id": "DATASET", "base_model": "builtin:small"},
        "no_usable_relations",
        "labels",
        "relation",
    ),
    "labels from two places": (
        "training-jobs",
        {
            "dataset_id": "DATASET",
            "base_model": "builtin:small",
            "labels": {"annotation_jobs": ["an_1"], "dataset": True},
        },
        "invalid_input",
        "labels",
        "either",
    ),
    "more epochs than are allowed": (
        "training-jobs",
        {"dataset_id": "DATASET", "base_model": "builtin:small", "config": {"epochs": 101}},
        "invalid_input",
        "config.epochs",
        "at most 100",
    ),
    "a setting out of its range": (
        "training-jobs",
        {"dataset_id": "DATASET", "base_model": "builtin:small", "config": {"lora_rank": 513}},
        "invalid_input",
        "config.lora_rank",
        "from 1 to 512",
    ),
    "a setting nobody knows": (
        "training-jobs",
        {"dataset_id": "DATASET", "base_model": "builtin:small", "config": {"rank": 8}},
        "invalid_input",
        "config.rank",
        "unknown",
    ),
    "a training split that is also evaluated": (
        "training-jobs",
        {
            "dataset_id": "DATASET",
            "base_model": "builtin:small",
            "config": {"method": "sft"},
            "eval_splits": ["train"],
        },
        "invalid_input",
        "eval_splits",
        "train",
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_explained_and_nothing_comes_of_it(api: Api, name: str) -> None:
    path, body, code, field, words = BODIES[name]
    if isinstance(body, dict) and "dataset_id" in body:
        ids = {"DATASET": api.dataset(), "PRIOR": api.prior()}
        body = {key: ids.get(value, value) if isinstance(value, str) else value for key, value in body.items()}
    answer = api.client.post(f"/v1/{path}", json=body)
    assert_problem(answer, 422, code, field or answer.json().get("field"), words)
    with api.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0
        if path == "priors":
            assert session.scalar(select(func.count()).select_from(PriorRow)) == 0


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("annotation-jobs", {"dataset_id": "ds_none", "prior_id": "PRIOR", "teacher": "rule"}, "dataset_id"),
        ("annotation-jobs", {"dataset_id": "DATASET", "prior_id": "prior_none", "teacher": "rule"}, "prior_id"),
        ("training-jobs", {"dataset_id": "ds_none", "base_model": "builtin:small"}, "dataset_id"),
    ],
)
def test_an_unknown_id_in_a_body_is_named(api: Api, path: str, body: dict[str, Any], field: str) -> None:
    ids = {"DATASET": api.dataset(), "PRIOR": api.prior()}
    answer = api.client.post(f"/v1/{path}", json={key: ids.get(value, value) for key, value in body.items()})
    assert_problem(answer, 404, "not_found", field, body[field])


@pytest.mark.parametrize(
    ("content", "type_", "words"),
    [
        (b'{"name": ', "application/json", "not valid JSON"),
        (b'{"name": "a"}', "text/plain", "Content-Type: application/json"),
        (b"[" * 100_000, "application/json", "body"),
        (b"\xff", "application/json", "body"),
    ],
)
def test_a_body_that_cannot_be_read_is_the_clients_fault(
    sqlite_api: Api, content: bytes, type_: str, words: str
) -> None:
    answer = sqlite_api.client.post("/v1/datasets", content=content, headers={"Content-Type": type_})
    assert 400 <= answer.status_code < 500
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("content", [b"a: [", b"{", b"\xff", b"&a [*a]", b"x" * 400_001, b"- " * 50_000])
@pytest.mark.parametrize("type_", ["application/yaml", "application/json"])
def test_a_prior_that_cannot_be_read_is_the_clients_fault(sqlite_api: Api, content: bytes, type_: str) -> None:
    answer = sqlite_api.client.post("/v1/priors", content=content, headers={"Content-Type": type_})
    assert_problem(answer, 422, "invalid_input", "prior", "")


@pytest.mark.parametrize(
    "path",
    [
        "datasets?limit=0",
        "datasets?limit=1001",
        "datasets?cursor=!",
        "datasets?cursor=W10",
        "annotation-jobs?state=asleep",
        "annotations",
        "annotations?job_id=x&outcome=fine",
    ],
)
def test_a_bad_query_is_explained(sqlite_api: Api, path: str) -> None:
    answer = sqlite_api.client.get(f"/v1/{path}")
    field = path.partition("?")[2].rpartition("&")[2].partition("=")[0] or "job_id"
    assert_problem(answer, 422, "invalid_input", field, field)


@pytest.mark.parametrize("id_", ["%00", "a%20b", "x" * 41, "..%2F..", "%F0%9F%92%A9"])
def test_an_id_that_cannot_be_one_is_not_found_or_refused(sqlite_api: Api, id_: str) -> None:
    assert sqlite_api.client.get(f"/v1/datasets/{id_}").status_code in (404, 422)


def test_a_body_over_the_limit_is_refused_whether_announced_or_not(make_api: Any) -> None:
    api = make_api(body_bytes=1_000)

    def pieces() -> Any:
        yield from [b"x" * 600] * 2

    for content in (b"x" * 1_001, pieces()):
        answer = api.client.post("/v1/datasets", content=content, headers={"Content-Type": "application/json"})
        assert_problem(answer, 413, "payload_too_large", None, "1000 bytes")


def test_the_default_config_is_what_the_schema_says(sqlite_api: Api) -> None:
    """The schema is generated from the fields: one that is missing there could not be found by a user."""
    schema = sqlite_api.client.get("/openapi.json").json()["components"]["schemas"]["TrainingJobIn"]
    properties = schema["properties"]["config"]["properties"]
    assert properties.keys() == set(TrainingConfig.__dataclass_fields__)
    assert properties["lora_rank"] == {
        "type": "integer",
        "default": 16,
        "description": "LoRA r",
        "minimum": 1,
        "maximum": 512,
    }
    assert properties["method"]["enum"] == ["sft", "cat"]
    assert "fraction of steps" in properties["objective"]["properties"]["guide_end"]["description"]
