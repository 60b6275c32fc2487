"""An adapter is whole or absent, and exists exactly when its job succeeded."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from core import adapters
from core.db.models import Adapter
from core.db.session import Database
from core.domain.lifecycle import JobState
from core.errors import AdapterDamaged, LeaseLost, NotFound
from core.job_store import cancel_job, delete_job
from core.jobs import JobKind
from core.storage import BlobStore
from tests import scenes

_METRICS = {"iid": {"accuracy": 0.75}}


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _adapter_folder(tmp_path / "run" / "adapter")


def _adapter_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    files = {"adapter_model.safetensors": b"weights", "adapter_config.json": b"{}", "README.md": b"# card"}
    entries = {}
    for name, content in files.items():
        (folder / name).write_bytes(content)
        entries[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "manifest.json").write_text(json.dumps({"files": entries}))
    return folder


def _publish(database: Database, blobs: BlobStore, folder: Path, **changed: Any) -> Adapter | None:
    job = scenes.training_job(database)
    claim = changed.get("claim") or scenes.claimed(database, job.id)
    staged, manifest = adapters.stage_archive(blobs, folder)
    with database.transaction() as uow:
        return adapters.publish(uow, claim, blobs=blobs, staged=staged, manifest=manifest, metrics=_METRICS)


def _stored(blobs: BlobStore) -> list[str]:
    return [key for key, _ in blobs.keys("adapters")]


def test_the_adapter_and_the_success_of_its_job_are_one(database: Database, blobs: BlobStore, folder: Path) -> None:
    adapter = _publish(database, blobs, folder)
    assert adapter is not None
    assert adapter.job_id is not None
    job = scenes.row(database, adapter.job_id)
    assert (job.state, job.result) == (JobState.SUCCEEDED, {"adapter_id": adapter.id, "metrics": _METRICS})
    with database.reading() as session:
        found = adapters.get(session, tenant_id=scenes.TENANT, adapter_id=adapter.id)
        with pytest.raises(NotFound):
            adapters.get(session, tenant_id="other", adapter_id=adapter.id)
    assert (found.name, found.method, found.base_model) == ("a run", "sft", "builtin:small")
    file, size = adapters.open_archive(blobs, found)
    with file:
        content = file.read()
    assert (hashlib.sha256(content).hexdigest(), len(content), size) == (found.sha256, found.size, found.size)


def test_the_same_folder_gives_the_same_archive(sqlite: Database, blobs: BlobStore, folder: Path) -> None:
    first, second = _publish(sqlite, blobs, folder), _publish(sqlite, blobs, folder)
    assert first is not None
    assert second is not None
    assert first.sha256 == second.sha256
    assert first.blob_key != second.blob_key  # deleting one must not take the other's archive


def test_a_cancelled_job_publishes_nothing(database: Database, blobs: BlobStore, folder: Path) -> None:
    job = scenes.training_job(database)
    claim = scenes.claimed(database, job.id)
    staged, manifest = adapters.stage_archive(blobs, folder)
    with database.transaction() as uow:
        cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.TRAINING, job_id=job.id)
    with database.transaction() as uow:
        assert adapters.publish(uow, claim, blobs=blobs, staged=staged, manifest=manifest, metrics={}) is None
    assert scenes.row(database, job.id).state == JobState.CANCELLED
    assert _stored(blobs) == []


def test_a_worker_that_lost_its_lease_publishes_nothing(database: Database, blobs: BlobStore, folder: Path) -> None:
    job = scenes.training_job(database)
    stale = scenes.claimed(database, job.id)
    scenes.run_out(database, job.id)
    scenes.claimed(database, job.id)
    with pytest.raises(LeaseLost):
        _publish(database, blobs, folder, claim=stale)
    assert _stored(blobs) == []
    with database.reading() as session:
        assert adapters.list_adapters(session, tenant_id=scenes.TENANT) == []


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "README.md", "manifest.json"])
def test_a_damaged_folder_is_refused(blobs: BlobStore, folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"torn")
    with pytest.raises(AdapterDamaged):
        adapters.stage_archive(blobs, folder)
    (folder / name).unlink()
    with pytest.raises(AdapterDamaged):
        adapters.stage_archive(blobs, folder)


def test_a_file_that_the_manifest_does_not_know_is_refused(blobs: BlobStore, folder: Path) -> None:
    (folder / "optimizer.pt").write_bytes(b"pickle")
    with pytest.raises(AdapterDamaged, match=r"optimizer\.pt"):
        adapters.stage_archive(blobs, folder)


def test_an_adapter_outlives_its_job_and_goes_when_it_is_deleted(
    database: Database, blobs: BlobStore, folder: Path
) -> None:
    adapter = _publish(database, blobs, folder)
    assert adapter is not None
    assert adapter.job_id is not None
    with database.transaction() as uow:
        delete_job(uow, tenant_id=scenes.TENANT, kind=JobKind.TRAINING, job_id=adapter.job_id)
    with database.reading() as session:
        [left] = adapters.list_adapters(session, tenant_id=scenes.TENANT)
        assert (left.id, left.job_id) == (adapter.id, None)
        assert adapters.orphans(session, blobs, before=time.time() + 1) == []
    with database.transaction() as uow:
        key = adapters.remove(uow, tenant_id=scenes.TENANT, adapter_id=adapter.id)
    with database.reading() as session:
        assert adapters.orphans(session, blobs, before=time.time() + 1) == [key]
        assert adapters.orphans(session, blobs, before=time.time() - 3600) == []
    blobs.delete(key)
    with pytest.raises(NotFound):
        adapters.open_archive(blobs, adapter)
