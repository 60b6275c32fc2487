"""Guarantee 21: every operation, with every key that must not do it. A new route without an entry fails."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from api.app import create_app
from core.db.base import Base
from core.db.session import Database
from core.keys import Scope
from core.settings import Settings
from core.storage import BlobStore
from tests.api.conftest import OTHER, Api

Ids = dict[str, str]


@dataclass(frozen=True)
class Entry:
    """How to call one operation so that it would succeed for the owner of everything in `ids`."""

    body: Callable[[Ids], Any] | None = None
    params: Callable[[Ids], dict[str, str]] = field(default=lambda ids: {})
    names_nothing: bool = False  # it names no resource: another tenant may do it, for himself


_PUBLIC = {"GET /healthz", "GET /readyz", "GET /metrics"}
_LIST = Entry(names_nothing=True)
_NAMED = Entry()
ENTRIES: dict[str, Entry] = {
    "POST /v1/datasets": Entry(lambda ids: {"name": "x"}, names_nothing=True),
    "GET /v1/datasets": _LIST,
    "GET /v1/datasets/{dataset_id}": _NAMED,
    "DELETE /v1/datasets/{dataset_id}": _NAMED,
    "POST /v1/datasets/{dataset_id}/examples": Entry(lambda ids: {"input": "1 + 1 = ", "target": "2"}),
    "GET /v1/datasets/{dataset_id}/examples": _NAMED,
    "POST /v1/priors": Entry(
        lambda ids: {"name": "x", "version": "1", "instructions": "y", "rules": [{"causes": ["a"]}]},
        names_nothing=True,
    ),
    "GET /v1/priors": _LIST,
    "GET /v1/priors/{prior_id}": _NAMED,
    "POST /v1/annotation-jobs": Entry(
        lambda ids: {"dataset_id": ids["dataset_id"], "prior_id": ids["prior_id"], "teacher": "rule"}
    ),
    "GET /v1/annotation-jobs": _LIST,
    "GET /v1/annotation-jobs/{job_id}": _NAMED,
    "POST /v1/annotation-jobs/{job_id}/cancel": _NAMED,
    "POST /v1/annotation-jobs/{job_id}/retry": _NAMED,
    "POST /v1/annotation-jobs/{job_id}/budget": Entry(lambda ids: {"budget_tokens": 10}),
    "DELETE /v1/annotation-jobs/{job_id}": _NAMED,
    "GET /v1/annotation-jobs/{job_id}/events": _NAMED,
    "GET /v1/annotation-jobs/{job_id}/export": _NAMED,
    "GET /v1/annotation-jobs/{job_id}/quality": _NAMED,
    "GET /v1/annotation-jobs/{job_id}/compare": Entry(params=lambda ids: {"with": ids["annotation_job_id"]}),
    "GET /v1/annotations": Entry(params=lambda ids: {"job_id": ids["annotation_job_id"]}),
    "GET /v1/annotations/{annotation_id}": _NAMED,
    "GET /v1/annotations/{annotation_id}/reviews": _NAMED,
    "PUT /v1/annotations/{annotation_id}/review": Entry(lambda ids: {"version": 1, "decision": "accepted"}),
    "POST /v1/training-jobs": Entry(
        lambda ids: {
            "dataset_id": ids["dataset_id"],
            "base_model": "builtin:small",
            "labels": {"annotation_jobs": [ids["annotation_job_id"]]},
        }
    ),
    "GET /v1/training-jobs": _LIST,
    "GET /v1/training-jobs/{job_id}": _NAMED,
    "POST /v1/training-jobs/{job_id}/cancel": _NAMED,
    "POST /v1/training-jobs/{job_id}/retry": _NAMED,
    "DELETE /v1/training-jobs/{job_id}": _NAMED,
    "GET /v1/training-jobs/{job_id}/events": _NAMED,
    "GET /v1/adapters": _LIST,
    "GET /v1/adapters/{adapter_id}": _NAMED,
    "DELETE /v1/adapters/{adapter_id}": _NAMED,
    "GET /v1/adapters/{adapter_id}/download": _NAMED,
    "HEAD /v1/adapters/{adapter_id}/download": _NAMED,
}


def operations() -> set[str]:
    """Everything the OpenAPI document offers."""
    app = create_app(Settings(), Database("sqlite:///nowhere.db"), blobs=BlobStore(Path("nowhere")))
    return {
        f"{method.upper()} {path}"
        for path, methods in app.openapi()["paths"].items()
        for method in methods
        if method in ("get", "put", "post", "delete", "patch", "head", "options")
    }


@pytest.fixture
def ids(api: Api, tmp_path: Path) -> Ids:
    """One of everything, owned by TENANT."""
    dataset_id = api.dataset()
    job_id = api.annotation_job(dataset_id)
    [item, *_] = api.client.get("/v1/annotations", params={"job_id": job_id}).json()["items"]
    return {
        "dataset_id": dataset_id,
        "prior_id": api.prior(),
        "annotation_job_id": job_id,
        "annotation_id": str(item["id"]),
        "training_job_id": api.training_job(dataset_id),
        "adapter_id": api.adapter(b"archive", tmp_path),
    }


def test_every_operation_has_an_entry() -> None:
    assert operations() == set(ENTRIES) | _PUBLIC


@pytest.mark.parametrize("operation", sorted(ENTRIES))
def test_only_the_right_key_opens_it(api: Api, ids: Ids, operation: str) -> None:
    entry = ENTRIES[operation]
    needed = Scope.READ if operation.startswith(("GET", "HEAD")) else Scope.WRITE
    [lacking] = set(Scope) - {needed}
    attacks = [(401, secret, ids) for secret in (None, "cw_nonsense", api.secret(revoked=True))]
    attacks.append((403, api.secret(scopes=(lacking,)), ids))
    if not entry.names_nothing:
        # An id that nobody has reads like one that another tenant has.
        attacks.append((404, api.secret(), dict.fromkeys(ids, "nobody")))
        other = api.secret(OTHER)
        attacks += [(404, other, mixed) for mixed in one_foreign_id_at_a_time(api, other, operation, ids)]
    before = everything(api.database)
    for status, secret, used in attacks:
        answer = call(api, secret, operation, used)
        assert answer.status_code == status, answer.text
        if not operation.startswith("HEAD"):
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == status
    assert everything(api.database) == before


@pytest.mark.parametrize("operation", sorted(op for op, entry in ENTRIES.items() if entry is _LIST))
def test_a_list_shows_nothing_of_others(api: Api, ids: Ids, operation: str) -> None:
    assert call(api, api.secret(OTHER), operation, ids).json() == {"items": [], "next": None}
    assert call(api, api.secret(), operation, ids).json()["items"]


class Recorded(dict[str, str]):
    """Ids that remember which of them were asked for."""

    def __init__(self, ids: Ids) -> None:
        super().__init__(ids)
        self.used: set[str] = set()

    def __getitem__(self, key: str) -> str:
        self.used.add(key)
        return super().__getitem__(key)


def one_foreign_id_at_a_time(api: Api, secret: str, operation: str, ids: Ids) -> list[Ids]:
    """For a tenant with things of his own: theirs, but for one of those that the operation names."""
    recorded = Recorded(ids)
    entry = ENTRIES[operation]
    if entry.body:
        entry.body(recorded)
    if len(recorded.used) < 2:
        return [ids]
    attacker = replace(api, client=api.as_(secret))
    own = ids | {"dataset_id": attacker.dataset(), "prior_id": attacker.prior()}
    own["annotation_job_id"] = attacker.annotation_job(own["dataset_id"])
    return [own | {name: ids[name]} for name in sorted(recorded.used)]


def call(api: Api, secret: str | None, operation: str, ids: Ids) -> Any:
    method, path = operation.split()
    entry = ENTRIES[operation]
    job_id = ids["annotation_job_id" if "annotation" in path else "training_job_id"]
    return api.as_(secret).request(
        method,
        path.format(**ids, job_id=job_id),
        json=entry.body(ids) if entry.body else None,
        params=entry.params(ids),
    )


def everything(database: Database) -> dict[str, list[str]]:
    """All rows of all tables, keys excepted: what an attacker must not have changed."""
    with database.reading() as session:
        return {
            table.name: sorted(repr(tuple(row)) for row in session.execute(select(table)))
            for table in Base.metadata.sorted_tables
            if table.name != "api_keys"
        }
