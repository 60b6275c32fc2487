"""The tables. tenant_id stands on every row, and in every query."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import Mapped, mapped_column

from core.db.base import Base, Json, PublicId, Serial, Timestamp, one_of, utcnow
from core.db.teacher_rows import Reservation as Reservation
from core.db.teacher_rows import TeacherBatch as TeacherBatch
from core.db.teacher_rows import TeacherReply as TeacherReply
from core.domain.annotation import Decision, Outcome
from core.domain.lifecycle import JobState
from core.jobs import JobKind


class ApiKey(Base):
    """A bearer key. The key itself is never stored: a prefix to find it by, and its SHA-256."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(PublicId, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str] = mapped_column(String(200))
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    sha256: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=utcnow)
    expires_at: Mapped[datetime | None] = mapped_column(Timestamp)
    revoked_at: Mapped[datetime | None] = mapped_column(Timestamp)


class IdempotencyKey(Base):
    """The answer given to a creating POST, to be given again to its repetition."""

    __tablename__ = "idempotency_keys"

    tenant_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(64))  # of method, path, query and body
    status: Mapped[int] = mapped_column(Integer)
    headers: Mapped[dict[str, str]] = mapped_column(Json)
    body: Mapped[str] = mapped_column(Text)  # as it was sent: JSONB would not give the same bytes back
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=utcnow, index=True)


class Dataset(Base):
    """A named set of examples. Deleting one removes its examples and keeps the row, so that jobs keep their history."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(PublicId, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str] = mapped_column(String(200))
    splits: Mapped[dict[str, int]] = mapped_column(Json, default=dict)  # examples per split, kept by whoever adds them
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=utcnow)
    deleted_at: Mapped[datetime | None] = mapped_column(Timestamp)


class ExampleRow(Base):
    """One example. `position` is the order of arrival, which is the order of training data."""

    __tablename__ = "examples"
    __table_args__ = (
        UniqueConstraint("dataset_id", "key"),
        Index("ix_examples_dataset_split", "dataset_id", "split", "position"),
    )

    position: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    split: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(200))  # the user's id, or one made for them
    digest: Mapped[str] = mapped_column(String(64))  # SHA-256 of all that the user sent, to tell equal from changed
    input: Mapped[str] = mapped_column(Text)
    target: Mapped[str] = mapped_column(Text)
    choices: Mapped[list[str]] = mapped_column(Json)
    relations: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    unresolved: Mapped[list[dict[str, Any]]] = mapped_column(Json)  # edges of `important` that did not ground
    # Its relations are a human's, to measure teachers by. The default is for writers that know no gold yet.
    gold: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())


class PriorRow(Base):
    """A prior. A name and version, once posted, never change their content."""

    __tablename__ = "priors"
    __table_args__ = (UniqueConstraint("tenant_id", "name", "version"),)

    id: Mapped[str] = mapped_column(PublicId, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(200))
    version: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))
    body: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=utcnow)


class Job(Base):
    """The job itself, not a record of it: whoever moves `epoch` on owns it until `lease_until`."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(one_of("state", JobState), name="state"),
        CheckConstraint(one_of("kind", JobKind), name="kind"),
        Index("ix_jobs_tenant_kind", "tenant_id", "kind", "id"),
        Index("ix_jobs_runnable", "state", "lease_until"),
    )

    id: Mapped[str] = mapped_column(PublicId, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), default=JobState.QUEUED)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    prior_id: Mapped[str | None] = mapped_column(ForeignKey("priors.id"))
    retry_of: Mapped[str | None] = mapped_column(PublicId)
    request: Mapped[dict[str, Any]] = mapped_column(Json)
    labels_sha256: Mapped[str | None] = mapped_column(
        String(64)
    )  # training: what the labels were when it was asked for
    total: Mapped[int] = mapped_column(Integer, default=0)  # items, or optimiser steps
    done: Mapped[int] = mapped_column(Integer, default=0)
    progress: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)  # {"code", "message", ...facts}
    epoch: Mapped[int] = mapped_column(Integer, default=0)  # claims so far: the fencing token
    attempts: Mapped[int] = mapped_column(Integer, default=0)  # claims that ended in a lost lease
    lease_until: Mapped[float | None] = mapped_column(Double)  # unix seconds on the database's clock
    not_before: Mapped[float | None] = mapped_column(Double)  # the same: until then nobody need claim it
    cursor: Mapped[int] = mapped_column(BigInteger, default=0)  # training: bytes of events.jsonl that are events here
    # Annotation: the most it may cost (null: no bound), what it has cost, and the sum of its reservations.
    budget_tokens: Mapped[int | None] = mapped_column(BigInteger)
    budget_nano_usd: Mapped[int | None] = mapped_column(BigInteger)
    spent_tokens: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    spent_nano_usd: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    reserved_tokens: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    reserved_nano_usd: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    version: Mapped[int] = mapped_column(Integer, default=1)  # counts visible changes: the ETag
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=utcnow)
    started_at: Mapped[datetime | None] = mapped_column(Timestamp)
    finished_at: Mapped[datetime | None] = mapped_column(Timestamp)


class JobEvent(Base):
    """Something that happened to a job, in order. `id` is the Last-Event-ID of the stream."""

    __tablename__ = "job_events"
    __table_args__ = (Index("ix_job_events_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]] = mapped_column(Json)
    at: Mapped[datetime] = mapped_column(Timestamp, default=utcnow)


class OutboxRow(Base):
    """A nudge that was promised in a transaction. Gone once it was handed to the broker."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    job_id: Mapped[str] = mapped_column(PublicId)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=utcnow)


class AnnotationRow(Base):
    """One item of an annotation job: pending while `outcome` is null, then what the teacher said and what grounded."""

    __tablename__ = "annotations"
    __table_args__ = (
        UniqueConstraint("job_id", "example_position"),
        CheckConstraint(f"outcome is null or {one_of('outcome', Outcome)}", name="outcome"),
        Index("ix_annotations_job_outcome", "job_id", "outcome", "id"),
    )

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    example_position: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"),
        ForeignKey("examples.position", ondelete="CASCADE"),
        index=True,
    )
    outcome: Mapped[str | None] = mapped_column(String(16))
    relations: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)
    unresolved: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)
    unresolved_count: Mapped[int] = mapped_column(Integer, default=0)
    detail: Mapped[str | None] = mapped_column(Text)
    raw_reply: Mapped[str | None] = mapped_column(Text)
    prompt_hash: Mapped[str | None] = mapped_column(String(64))
    prompt_tokens: Mapped[int] = mapped_column(Integer, default=0)
    completion_tokens: Mapped[int] = mapped_column(Integer, default=0)
    confidence: Mapped[float | None] = mapped_column(Double)  # agreement of the teacher's votes, where it had several
    # The batch that asks, or asked, about it. While that is open, no other may; no foreign key, see migration 0004.
    batch_id: Mapped[str | None] = mapped_column(PublicId)
    updated_at: Mapped[datetime | None] = mapped_column(Timestamp)


class ReviewRow(Base):
    """What a human decided about an example's relations. The highest number counts, the others are history."""

    __tablename__ = "reviews"
    __table_args__ = (
        UniqueConstraint("example_position", "number"),
        CheckConstraint(one_of("decision", Decision), name="decision"),
    )

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    example_position: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), ForeignKey("examples.position", ondelete="CASCADE")
    )
    number: Mapped[int] = mapped_column(Integer)  # of the example's reviews, from 1; also the version it was based on
    annotation_id: Mapped[int] = mapped_column(BigInteger)  # what the human saw; gone when its job was deleted
    decision: Mapped[str] = mapped_column(String(16))
    relations: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    key_id: Mapped[str] = mapped_column(PublicId)  # who
    at: Mapped[datetime] = mapped_column(Timestamp, default=utcnow)


class Adapter(Base):
    """A finished adapter. The row is the commit point: without it the archive does not exist."""

    __tablename__ = "adapters"

    id: Mapped[str] = mapped_column(PublicId, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(64), index=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    method: Mapped[str] = mapped_column(String(16))
    base_model: Mapped[str] = mapped_column(String(300))
    base_revision: Mapped[str | None] = mapped_column(String(100))
    blob_key: Mapped[str] = mapped_column(String(300))
    sha256: Mapped[str] = mapped_column(String(64))  # of the archive
    size: Mapped[int] = mapped_column(BigInteger)  # bytes of the archive
    manifest: Mapped[dict[str, Any]] = mapped_column(Json)
    metrics: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=utcnow)
