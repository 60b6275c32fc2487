"""budgets of annotation jobs, and what is set aside for calls

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

from migrations import types

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_BOUNDS = ("budget_tokens", "budget_nano_usd")
_SUMS = ("spent_tokens", "spent_nano_usd", "reserved_tokens", "reserved_nano_usd")


def upgrade() -> None:
    # The state `paused_budget` is in 0001: SQLite cannot change a constraint without rebuilding the table.
    for name in _BOUNDS:
        op.add_column("jobs", sa.Column(name, sa.BigInteger(), nullable=True))
    for name in _SUMS:
        op.add_column("jobs", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    op.create_table(
        "reservations",
        sa.Column("id", types.SERIAL, autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("made_at", types.TIMESTAMP, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_reservations_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservations")),
    )
    op.create_index(op.f("ix_reservations_job_id"), "reservations", ["job_id"])


def downgrade() -> None:
    op.drop_table("reservations")
    for name in (*_BOUNDS, *_SUMS):
        op.drop_column("jobs", name)
