import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from api.app import create_app
from api.errors import status_of
from api.schemas.annotations import AnnotationJobIn
from api.schemas.datasets import DatasetIn, ExampleIn
from api.schemas.reviews import ReviewIn
from api.schemas.trainings import TrainingJobIn
from core import errors
from core.db.session import Database
from core.domain.training import training_from_json
from core.settings import Settings
from core.storage import BlobStore


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings(), Database("sqlite:///nowhere.db"), blobs=BlobStore(Path("nowhere"))).openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_route_is_summed_up_described_and_grouped(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert len(operation["tags"]) == 1, name
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(ids)) == len(ids)


def test_every_route_of_v1_wants_a_key_and_says_how_it_fails(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        if "/v1/" not in name:
            assert "security" not in operation, name
            continue
        assert operation["security"] == [{"Bearer": []}], name
        assert {"401", "403"} <= operation["responses"].keys(), name
        for status, response in operation["responses"].items():
            if status >= "400":
                assert list(response["content"]) == ["application/problem+json"], (name, status)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for reference in re.findall(r'"#/components/schemas/(\w+)"', str(document).replace("'", '"')):
        assert reference in schemas


@pytest.mark.parametrize("model", [DatasetIn, ExampleIn, AnnotationJobIn, ReviewIn, TrainingJobIn])
def test_the_examples_are_good_input(document: dict[str, Any], model: Any) -> None:
    schema = document["components"]["schemas"][model.__name__] | {"components": document["components"]}
    assert schema["examples"]
    for example in schema["examples"]:
        Draft202012Validator(schema).validate(example)
        model.model_validate(example)
        training_from_json(example.get("config", {}))


def test_every_error_of_ours_has_a_status() -> None:
    statuses = {
        kind.code: int(status_of(kind("")))
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.CausewayError)
    }
    assert statuses["prior_not_grounded"] == statuses["invalid_span"] == 422
    assert statuses["payload_too_large"] == 413
    assert statuses["illegal_transition"] == statuses["labels_not_ready"] == 409
    assert statuses["teacher_unreachable"] == statuses["unavailable"] == 503
    assert statuses["internal"] == 500
