"""The deployment files say what they must: there is no container engine where the tests run, so they are read."""

import importlib.util
import json
import re
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from core.settings import Settings

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ["migrate", "api", "relay", "annotation-worker", "training-worker"]

_TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}
_CONDITION = {"enum": ["service_started", "service_healthy", "service_completed_successfully"]}
_TESTED = {
    "type": "object",
    "additionalProperties": False,
    "required": ["test", "interval", "timeout", "retries"],
    "properties": {
        "test": {**_TEXTS, "items": [{"enum": ["CMD", "CMD-SHELL"]}], "additionalItems": {"type": "string"}},
        "interval": _DURATION,
        "timeout": _DURATION,
        "start_period": _DURATION,
        "retries": {"type": "integer"},
    },
}
_DISABLED = {"type": "object", "additionalProperties": False, "properties": {"disable": {"const": True}}}
_DEVICES = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["capabilities"],
        "properties": {"driver": {"type": "string"}, "count": {"type": ["string", "integer"]}, "capabilities": _TEXTS},
    },
}


def _only(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


# The part of the compose specification that our files use; a key outside of it is a misspelling until added here.
_SERVICE = _only(
    image={"type": "string"},
    build=_only(context={"type": "string"}, target={"type": "string"}),
    command=_TEXTS,
    user={"type": "string", "pattern": "^[0-9]+:[0-9]+$"},
    restart={"enum": ["no", "always", "on-failure", "unless-stopped"]},
    init={"type": "boolean"},
    read_only={"type": "boolean"},
    tmpfs=_TEXTS,
    cap_drop=_TEXTS,
    security_opt=_TEXTS,
    env_file={"type": "array", "items": _only(path={"type": "string"}, required={"type": "boolean"})},
    environment={"type": "object", "additionalProperties": {"type": "string"}},
    networks=_TEXTS,
    ports=_TEXTS,
    volumes={"type": "array", "items": {"type": "string", "pattern": "^[a-z]+:/"}},
    shm_size={"type": "string", "pattern": "^[0-9]+(mb|gb)$"},
    stop_grace_period=_DURATION,
    depends_on={"type": "object", "additionalProperties": _only(condition=_CONDITION)},
    healthcheck={"anyOf": [_TESTED, _DISABLED]},
    deploy=_only(resources=_only(reservations=_only(devices=_DEVICES))),
)
_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "properties": {
        "name": {"type": "string"},
        "services": {"type": "object", "additionalProperties": _SERVICE},
        "networks": {"type": "object", "additionalProperties": _only(internal={"type": "boolean"})},
        "volumes": {"type": "object", "additionalProperties": {"type": "object", "maxProperties": 0}},
    },
    "patternProperties": {"^x-": {}},
}


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.gpu.yml"])
def test_the_file_is_a_compose_file(name: str) -> None:
    jsonschema.Draft7Validator(_SCHEMA).validate(yaml.safe_load((ROOT / name).read_text()))


def test_the_roles_are_there() -> None:
    assert set(SERVICES) == {"postgres", "redis", *OURS}


def test_only_the_api_is_published_and_only_on_loopback() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "api": ["127.0.0.1:8000:8000"]
    }


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert int(service["user"].split(":")[0]) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_stays_is_checked_for_health(name: str) -> None:
    assert ("test" in SERVICES[name]["healthcheck"]) is (name != "migrate")


@pytest.mark.parametrize("name", SERVICES)
def test_references_point_at_something(name: str) -> None:
    service = SERVICES[name]
    assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(COMPOSE["volumes"])
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    assert set(service.get("depends_on", {})) <= set(SERVICES)


def test_everybody_waits_for_the_migrations() -> None:
    for name in set(OURS) - {"migrate"}:
        assert SERVICES[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert SERVICES["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_database_and_broker_have_no_way_out() -> None:
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert SERVICES["postgres"]["networks"] == SERVICES["redis"]["networks"] == ["inside"]


@pytest.mark.parametrize("name", OURS)
def test_a_role_runs_what_its_image_runs(name: str) -> None:
    service = SERVICES[name]
    stage = _stages()[service["build"]["target"]]
    assert json.loads(re.search(r"^CMD (\[.*\])$", stage, re.MULTILINE)[1]) == service["command"]  # type: ignore[index]
    if "test" in service["healthcheck"]:
        assert json.dumps(service["healthcheck"]["test"][1:]) in stage


@pytest.mark.parametrize("name", OURS)
def test_a_command_exists(name: str) -> None:
    command = SERVICES[name]["command"]
    if command[:2] == ["python", "-m"]:
        found = importlib.util.find_spec(command[2])
        assert found is not None
        if found.submodule_search_locations:
            assert importlib.util.find_spec(f"{command[2]}.__main__") is not None
    elif command[0] == "uvicorn":
        module, function = command[2].split(":")
        assert callable(getattr(importlib.import_module(module), function))
    else:
        assert command[0] == "causeway"


def test_only_the_training_image_has_torch_and_none_has_the_tools_of_development() -> None:
    stages = _stages()
    assert ".[trainer]" in stages["build-trainer"]
    assert [name for name in OURS if "build-trainer" in stages[name]] == ["training-worker"]
    assert not re.search(r"\[(.*,)?dev", (ROOT / "Dockerfile").read_text())


def test_images_run_as_a_numeric_user() -> None:
    runtime = _stages()["runtime"]
    assert re.search(r"^USER [1-9][0-9]*:[1-9][0-9]*$", runtime, re.MULTILINE)
    for name in OURS:
        assert "USER" not in _stages()[name]


def test_the_example_names_every_variable_and_its_default() -> None:
    example = dict(re.findall(r"^#? ?([A-Z][A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    ours = {name: value for name, value in example.items() if name.startswith("CAUSEWAY_")}
    del ours["CAUSEWAY_BASE_MODELS"]  # a whole table as JSON, shown beside its parts
    assert ours == dict(_variables(Settings))


def test_every_variable_that_is_set_exists() -> None:
    known = {name for name, _ in _variables(Settings)}
    for text in ((ROOT / name).read_text() for name in ("docker-compose.yml", "Dockerfile")):
        assert set(re.findall(r"\b(CAUSEWAY_[A-Z_]+)\b", text)) <= known


def _stages() -> dict[str, str]:
    """The text of each stage of the Dockerfile by its name."""
    parts = re.split(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _variables(model: type[BaseModel], prefix: str = "CAUSEWAY_") -> list[tuple[str, str]]:
    """Names and defaults of the variables of a settings model; NAME stands for the keys of a table."""
    found = []
    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        kinds = [field.annotation, *get_args(field.annotation)]
        nested = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if nested is None:
            value = "" if field.is_required() else field.get_default(call_default_factory=True)
            found.append((variable, _shown(value)))
        else:
            table = not isinstance(field.annotation, type | UnionType)
            found += _variables(nested, f"{variable}__NAME__" if table else f"{variable}__")
    return found


def _shown(value: Any) -> str:
    if value is None or "Secret" in type(value).__name__:
        return ""
    return json.dumps(value) if isinstance(value, bool | list) else str(value)
