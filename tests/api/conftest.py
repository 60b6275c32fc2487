"""An application on each database, and clients with keys of every kind."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from annotator.wire import annotation_to_json
from api.app import create_app
from api.deps import Services
from core import annotation_items, leases
from core.db.models import Adapter
from core.db.session import Database
from core.domain.annotation import Annotation, GroundedRelation, Outcome, Phrase, Reason, Unresolved
from core.domain.ids import new_id
from core.domain.spans import Grounding, Span
from core.jobs import Nudge
from core.keys import Scope, create_key, revoke_key
from core.settings import LimitSettings, Settings, StorageSettings
from core.storage import BlobStore

TENANT, OTHER = "acme", "umbrella"
PRIOR = {
    "name": "eagles",
    "version": "1",
    "instructions": "Mark what the answer comes from.",
    "demonstrations": [
        {
            "input": "There are 20 bald eagles and 15 harpy eagles. ",
            "target": "35 eagles",
            "relations": [{"effect": "35 eagles", "causes": ["20 bald eagles", "15 harpy eagles"]}],
        }
    ],
    "rules": [{"causes": ["[0-9]+ eagles"]}],
}
LINES = b"""\
{"id": "a", "input": "Sun shines. Is it warm? ", "target": "yes", "choices": ["yes", "no"]}
{"id": "b", "input": "Snow falls. Is it warm? ", "target": "no", "choices": ["yes", "no"]}
"""


@dataclass
class Api:
    """An application, what it is built on, and clients for it."""

    app: FastAPI
    settings: Settings
    database: Database
    blobs: BlobStore
    nudges: list[Nudge]
    client: TestClient  # of TENANT, with every scope

    def secret(self, tenant_id: str = TENANT, *, scopes: Iterable[Scope] = Scope, revoked: bool = False) -> str:
        """A new key."""
        with self.database.transaction() as uow:
            key, secret = create_key(uow, tenant_id=tenant_id, name="test", scopes=scopes)
        if revoked:
            with self.database.transaction() as uow:
                revoke_key(uow, key_id=key.id)
        return secret

    def as_(self, secret: str | None) -> TestClient:
        """A client with another key, or without one."""
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        client = TestClient(self.app, headers=headers)
        client.portal = self.client.portal  # the application is started once
        return client

    def dataset(self, lines: bytes = LINES, split: str = "train") -> str:
        """A dataset with examples."""
        dataset_id: str = self.client.post("/v1/datasets", json={"name": "weather"}).json()["id"]
        posted = self.client.post(f"/v1/datasets/{dataset_id}/examples?split={split}", content=lines)
        assert posted.status_code == 201, posted.text
        return dataset_id

    def prior(self) -> str:
        """A prior."""
        prior_id: str = self.client.post("/v1/priors", json=PRIOR).json()["id"]
        return prior_id

    def annotation_job(self, dataset_id: str | None = None) -> str:
        """A queued annotation job."""
        body = {"dataset_id": dataset_id or self.dataset(), "prior_id": self.prior(), "teacher": "rule"}
        job_id: str = self.client.post("/v1/annotation-jobs", json=body).json()["id"]
        return job_id

    def training_job(self, dataset_id: str | None = None) -> str:
        """A queued training job."""
        body = {
            "dataset_id": dataset_id or self.dataset(),
            "base_model": "builtin:small",
            "config": {"method": "sft"},
        }
        job_id: str = self.client.post("/v1/training-jobs", json=body).json()["id"]
        return job_id

    def label(self, job_id: str) -> None:
        """Do what an annotation worker does: every first item is labelled, every second is empty."""
        with self.database.transaction() as uow:
            claim = leases.claim(uow, job_id=job_id, lease=60, max_attempts=3)
            assert claim is not None
            items = annotation_items.pending_items(uow.session, claim, after=0, limit=100)
            labels = {item.id: annotation_to_json((_LABELLED, _EMPTY)[n % 2]) for n, item in enumerate(items)}
            annotation_items.store_labels(uow, claim, labels, items_per_second=10.0)
            annotation_items.complete(uow, claim)

    def adapter(self, content: bytes, folder: Path, job_id: str | None = None) -> str:
        """A finished adapter with an archive."""
        source = folder / "archive"
        source.write_bytes(content)
        staged = self.blobs.stage(source)
        key = f"adapters/{new_id('x')}/{staged.sha256}.tar.gz"
        self.blobs.publish(staged, key)
        adapter = Adapter(
            id=new_id("ad"),
            tenant_id=TENANT,
            job_id=job_id,
            name="mine",
            method="sft",
            base_model="builtin:small",
            blob_key=key,
            sha256=staged.sha256,
            size=staged.size,
            manifest={"files": {}},
            metrics={"ood": {"accuracy": 0.9}},
        )
        with self.database.transaction() as uow:
            uow.session.add(adapter)
        return adapter.id


_SUN = Phrase(Span(0, 3), "Sun", Grounding.EXACT)
_YES = Phrase(Span(24, 27), "yes", Grounding.EXACT)
_LABELLED = Annotation(
    Outcome.LABELLED,
    (GroundedRelation(_YES, (_SUN,)),),
    (Unresolved("yes", "moon", Reason.NOT_FOUND),),
    raw_reply="{...}",
)
_EMPTY = Annotation(Outcome.EMPTY, detail="nothing was found")


@pytest.fixture
def make_api(database: Database, tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Builds an application with limits of one's own; TENANT's client has started it."""
    with _built(database, tmp_path) as make:
        yield make


@pytest.fixture
def sqlite_api(sqlite: Database, tmp_path: Path) -> Iterator[Api]:
    """For what no database has a say in."""
    with _built(sqlite, tmp_path) as make:
        yield make()


@pytest.fixture
def postgres_api(postgres: Database, tmp_path: Path) -> Iterator[Api]:
    """For what many do at once."""
    with _built(postgres, tmp_path) as make:
        yield make()


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    """The application as it comes."""
    return make_api()


@cache
def _application() -> FastAPI:
    """Building one takes longer than most tests; what it works on is put in its place by each test."""
    return create_app(Settings(), Database("sqlite:///nowhere.db"), blobs=BlobStore(Path("nowhere")))


@contextmanager
def _built(database: Database, folder: Path) -> Iterator[Callable[..., Api]]:
    clients: list[TestClient] = []

    def make(*, reach_broker: Callable[[], None] = lambda: None, **limits: Any) -> Api:
        settings = Settings(
            storage=StorageSettings(blobs=folder / "blobs", spool=folder / "spool"), limits=LimitSettings(**limits)
        )
        nudges: list[Nudge] = []
        published = Database(database.engine.url.render_as_string(hide_password=False), publish=nudges.append)
        blobs = BlobStore(settings.storage.blobs)
        app = create_app(settings, published, blobs=blobs) if limits else _application()
        app.state.services = Services(settings, published, blobs, reach_broker)
        client = TestClient(app)
        client.__enter__()
        clients.append(client)
        made = Api(app, settings, published, blobs, nudges, client)
        client.headers["Authorization"] = f"Bearer {made.secret()}"
        return made

    yield make
    for client in clients:
        client.__exit__()
        client.app.state.services.database.dispose()  # type: ignore[attr-defined]
