"""Adapters: published once, listed, downloaded, deleted.

The archive is stored first, under a key made of the job and its own hash, so a worker that comes late can only store
the same bytes again. The row is the commit point: without it the archive does not exist.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.archive import write_archive
from core.db.models import Adapter, Job
from core.db.session import UnitOfWork
from core.db.text import storable
from core.domain.ids import new_id
from core.domain.lifecycle import JobState
from core.errors import AdapterDamaged, NotFound
from core.leases import Claim, fence, finish
from core.storage import BlobStore, Staged

MANIFEST = "manifest.json"
_KEYS = "adapters"


def stage_archive(blobs: BlobStore, folder: Path) -> tuple[Staged, dict[str, Any]]:
    """Check an adapter folder against its manifest, pack it and stage the archive. Returns the manifest too.

    Raises
    ------
    AdapterDamaged
        When the manifest cannot be read, or a file is missing, surplus or different.
    """
    manifest = _verified(folder)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archive = Path(scratch) / "adapter.tar.gz"
        write_archive(folder, archive)
        return blobs.stage(archive), manifest


def publish(
    uow: UnitOfWork,
    claim: Claim,
    *,
    blobs: BlobStore,
    staged: Staged,
    manifest: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> Adapter | None:
    """Make an adapter exist and its job succeed, both or neither. None when the job was cancelled in the meantime.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's; there is no adapter then.
    """
    job = fence(uow, claim)
    if JobState(job.state) is JobState.CANCELLING:
        finish(uow, claim, JobState.CANCELLED)
        return None
    key = f"{_KEYS}/{job.id}/{staged.sha256}.tar.gz"
    blobs.publish(staged, key)
    adapter = _row(job, key, staged, manifest, metrics)
    uow.session.add(adapter)
    finish(uow, claim, JobState.SUCCEEDED, result={"adapter_id": adapter.id, "metrics": metrics})
    return adapter


def get(session: Session, *, tenant_id: str, adapter_id: str) -> Adapter:
    """One adapter. Raises NotFound when there is none, or it is another tenant's."""
    query = select(Adapter).where(Adapter.id == adapter_id, Adapter.tenant_id == tenant_id)
    adapter = session.scalars(query).one_or_none()
    if adapter is None:
        raise NotFound(f"no adapter {adapter_id}", id=adapter_id)
    return adapter


def list_adapters(session: Session, *, tenant_id: str, after: str | None = None, limit: int = 50) -> list[Adapter]:
    """At most `limit` adapters, newest first, of those older than the adapter `after`."""
    query = select(Adapter).where(Adapter.tenant_id == tenant_id).order_by(Adapter.id.desc()).limit(limit)
    if after is not None:
        query = query.where(Adapter.id < after)
    return list(session.scalars(query))


def remove(uow: UnitOfWork, *, tenant_id: str, adapter_id: str) -> str:
    """Delete an adapter's row. Returns the key of its archive, to delete from the blob store after the commit.

    Raises
    ------
    NotFound
        As get.
    """
    adapter = get(uow.session, tenant_id=tenant_id, adapter_id=adapter_id)
    uow.session.delete(adapter)
    return adapter.blob_key


def open_archive(blobs: BlobStore, adapter: Adapter) -> tuple[BinaryIO, int]:
    """The archive for reading, and its size in bytes. Raises NotFound when the stored file is gone."""
    return blobs.open(adapter.blob_key)


def orphans(session: Session, blobs: BlobStore, *, before: float) -> list[str]:
    """Keys of archives published before a time (unix seconds) that no row names: their job lost its lease or failed."""
    old = [key for key, published in blobs.keys(_KEYS) if published < before]
    known = set(session.scalars(select(Adapter.blob_key).where(Adapter.blob_key.in_(old))))
    return [key for key in old if key not in known]


def _row(job: Job, key: str, staged: Staged, manifest: Mapping[str, Any], metrics: Mapping[str, Any]) -> Adapter:
    base = job.request["base"]
    return Adapter(
        id=new_id("ad"),
        tenant_id=job.tenant_id,
        job_id=job.id,
        name=job.request["name"] or job.id,
        method=job.request["config"]["method"],
        base_model=base["name"],
        base_revision=base["revision"],
        blob_key=key,
        sha256=staged.sha256,
        size=staged.size,
        manifest=storable(dict(manifest)),
        metrics=storable(dict(metrics)),
    )


def _verified(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        wanted = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise AdapterDamaged("the adapter has no readable manifest", file=MANIFEST) from exc
    found = {file.name: _sha256(file) for file in folder.iterdir() if file.name != MANIFEST}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise AdapterDamaged(f"{name} of the adapter is not what its manifest says", file=name)
    return manifest


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
