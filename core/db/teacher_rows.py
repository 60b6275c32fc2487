"""The tables of what is asked of teachers, and of what it costs. Import them from core.db.models, as all others."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.db.base import Base, Json, PublicId, Serial, Timestamp, one_of, utcnow
from core.domain.batches import BatchEnding, BatchState


class Reservation(Base):
    """What a call to a teacher may cost, set aside before it is made. Gone once the call is settled."""

    __tablename__ = "reservations"

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    tokens: Mapped[int] = mapped_column(BigInteger)
    nano_usd: Mapped[int] = mapped_column(BigInteger)
    made_at: Mapped[datetime] = mapped_column(Timestamp, default=utcnow)


class TeacherBatch(Base):
    """A file of questions to a teacher. Written before the endpoint hears of it, which knows it by our id too."""

    __tablename__ = "teacher_batches"
    __table_args__ = (
        CheckConstraint(one_of("state", BatchState), name="state"),
        CheckConstraint(f"ending is null or {one_of('ending', BatchEnding)}", name="ending"),
    )

    id: Mapped[str] = mapped_column(PublicId, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    state: Mapped[str] = mapped_column(String(16), default=BatchState.PREPARING, index=True)
    remote_id: Mapped[str | None] = mapped_column(String(200))
    remote_status: Mapped[str] = mapped_column(String(32), default="")  # in the endpoint's words
    form: Mapped[dict[str, Any]] = mapped_column(Json)  # how it was asked; once ended, how to ask next
    reservation_id: Mapped[int | None] = mapped_column(BigInteger)  # where the job has a budget
    lines: Mapped[int] = mapped_column(Integer)
    answered: Mapped[int] = mapped_column(Integer, default=0)  # as the endpoint counts them, then as we do
    misses: Mapped[int] = mapped_column(Integer, default=0)  # times it was looked for at the endpoint and not found
    failures: Mapped[int] = mapped_column(Integer, default=0)  # times in a row that the endpoint could not be reached
    ending: Mapped[str | None] = mapped_column(String(16))
    detail: Mapped[str] = mapped_column(Text, default="")  # what the endpoint said was wrong
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=utcnow)
    ended_at: Mapped[datetime | None] = mapped_column(Timestamp)


class TeacherReply(Base):
    """A reply that was paid for, by the hash of all that shaped it: asking again costs nothing."""

    __tablename__ = "teacher_replies"

    tenant_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    prompt_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    reply: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=utcnow, index=True)
