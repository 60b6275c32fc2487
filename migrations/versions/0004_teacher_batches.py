"""batches of a teacher, and jobs that wait without holding a worker

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

from migrations import types

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("not_before", sa.Double(), nullable=True))
    # No foreign key: SQLite would have to rebuild the table, and Postgres to look through all of it.
    op.add_column("annotations", sa.Column("batch_id", sa.String(length=40), nullable=True))
    op.create_table(
        "teacher_batches",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("remote_id", sa.String(length=200), nullable=True),
        sa.Column("remote_status", sa.String(length=32), nullable=False),
        sa.Column("form", types.JSON, nullable=False),
        sa.Column("reservation_id", sa.BigInteger(), nullable=True),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("answered", sa.Integer(), nullable=False),
        sa.Column("misses", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("ending", sa.String(length=16), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("created_at", types.TIMESTAMP, nullable=False),
        sa.Column("ended_at", types.TIMESTAMP, nullable=True),
        sa.CheckConstraint("state in ('preparing', 'submitted', 'ended')", name=op.f("ck_teacher_batches_state")),
        sa.CheckConstraint(
            "ending is null or ending in ('fruitful', 'barren', 'crowded')", name=op.f("ck_teacher_batches_ending")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_teacher_batches_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_teacher_batches")),
    )
    op.create_index(op.f("ix_teacher_batches_job_id"), "teacher_batches", ["job_id"])
    op.create_index(op.f("ix_teacher_batches_state"), "teacher_batches", ["state"])


def downgrade() -> None:
    op.drop_table("teacher_batches")
    op.drop_column("annotations", "batch_id")
    op.drop_column("jobs", "not_before")
