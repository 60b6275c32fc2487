"""reviews, gold examples, confidence of votes

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

from migrations import types

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Plain ALTER TABLE on SQLite too: a batch would drop and rebuild the table, and the drop cascades to the labels.
    op.add_column("examples", sa.Column("gold", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("annotations", sa.Column("confidence", sa.Double(), nullable=True))
    op.create_table(
        "reviews",
        sa.Column("id", types.SERIAL, autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("example_position", types.SERIAL, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("annotation_id", sa.BigInteger(), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("relations", types.JSON, nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("at", types.TIMESTAMP, nullable=False),
        sa.CheckConstraint("decision in ('accepted', 'changed')", name=op.f("ck_reviews_decision")),
        sa.ForeignKeyConstraint(
            ["example_position"],
            ["examples.position"],
            name=op.f("fk_reviews_example_position"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviews")),
        sa.UniqueConstraint("example_position", "number", name=op.f("uq_reviews_example_position_number")),
    )


def downgrade() -> None:
    op.drop_table("reviews")
    op.drop_column("annotations", "confidence")
    op.drop_column("examples", "gold")
