"""every table

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

from migrations import types

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("scopes", types.JSON, nullable=False),
        sa.Column("created_at", types.TIMESTAMP, nullable=False),
        sa.Column("expires_at", types.TIMESTAMP, nullable=True),
        sa.Column("revoked_at", types.TIMESTAMP, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_keys_prefix")),
    )
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_api_keys_tenant_id"), ["tenant_id"], unique=False)

    op.create_table(
        "datasets",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("splits", types.JSON, nullable=False),
        sa.Column("created_at", types.TIMESTAMP, nullable=False),
        sa.Column("deleted_at", types.TIMESTAMP, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
    )
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_datasets_tenant_id"), ["tenant_id"], unique=False)

    op.create_table(
        "idempotency_keys",
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", types.JSON, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", types.TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "key", name=op.f("pk_idempotency_keys")),
    )
    with op.batch_alter_table("idempotency_keys", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_idempotency_keys_created_at"), ["created_at"], unique=False)

    op.create_table(
        "outbox",
        sa.Column("id", types.SERIAL, autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", types.TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_table(
        "priors",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("body", types.JSON, nullable=False),
        sa.Column("created_at", types.TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_priors")),
        sa.UniqueConstraint("tenant_id", "name", "version", name=op.f("uq_priors_tenant_id_name_version")),
    )
    op.create_table(
        "teacher_replies",
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("prompt_hash", sa.String(length=64), nullable=False),
        sa.Column("reply", types.JSON, nullable=False),
        sa.Column("created_at", types.TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "prompt_hash", name=op.f("pk_teacher_replies")),
    )
    with op.batch_alter_table("teacher_replies", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_teacher_replies_created_at"), ["created_at"], unique=False)

    op.create_table(
        "examples",
        sa.Column("position", types.SERIAL, autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("split", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("input", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("choices", types.JSON, nullable=False),
        sa.Column("relations", types.JSON, nullable=False),
        sa.Column("unresolved", types.JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_examples_dataset_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_examples")),
        sa.UniqueConstraint("dataset_id", "key", name=op.f("uq_examples_dataset_id_key")),
    )
    with op.batch_alter_table("examples", schema=None) as batch_op:
        batch_op.create_index("ix_examples_dataset_split", ["dataset_id", "split", "position"], unique=False)

    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("prior_id", sa.String(length=40), nullable=True),
        sa.Column("retry_of", sa.String(length=40), nullable=True),
        sa.Column("request", types.JSON, nullable=False),
        sa.Column("labels_sha256", sa.String(length=64), nullable=True),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("progress", types.JSON, nullable=False),
        sa.Column("result", types.JSON, nullable=True),
        sa.Column("error", types.JSON, nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", types.TIMESTAMP, nullable=False),
        sa.Column("started_at", types.TIMESTAMP, nullable=True),
        sa.Column("finished_at", types.TIMESTAMP, nullable=True),
        sa.CheckConstraint("kind in ('annotation', 'training')", name=op.f("ck_jobs_kind")),
        sa.CheckConstraint(
            "state in ('queued', 'running', 'paused_budget', 'cancelling', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_jobs_state"),
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_jobs_dataset_id")),
        sa.ForeignKeyConstraint(["prior_id"], ["priors.id"], name=op.f("fk_jobs_prior_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_jobs_dataset_id"), ["dataset_id"], unique=False)
        batch_op.create_index("ix_jobs_runnable", ["state", "lease_until"], unique=False)
        batch_op.create_index("ix_jobs_tenant_kind", ["tenant_id", "kind", "id"], unique=False)

    op.create_table(
        "adapters",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=True),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("base_model", sa.String(length=300), nullable=False),
        sa.Column("base_revision", sa.String(length=100), nullable=True),
        sa.Column("blob_key", sa.String(length=300), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("manifest", types.JSON, nullable=False),
        sa.Column("metrics", types.JSON, nullable=False),
        sa.Column("created_at", types.TIMESTAMP, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_adapters_job_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adapters")),
        sa.UniqueConstraint("job_id", name=op.f("uq_adapters_job_id")),
    )
    with op.batch_alter_table("adapters", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_adapters_tenant_id"), ["tenant_id"], unique=False)

    op.create_table(
        "annotations",
        sa.Column("id", types.SERIAL, autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("example_position", types.SERIAL, nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("relations", types.JSON, nullable=True),
        sa.Column("unresolved", types.JSON, nullable=True),
        sa.Column("unresolved_count", sa.Integer(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("raw_reply", sa.Text(), nullable=True),
        sa.Column("prompt_hash", sa.String(length=64), nullable=True),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("updated_at", types.TIMESTAMP, nullable=True),
        sa.CheckConstraint(
            "outcome is null or outcome in ('labelled', 'empty', 'unreadable', 'refused', 'truncated', 'filtered', 'failed')",
            name=op.f("ck_annotations_outcome"),
        ),
        sa.ForeignKeyConstraint(
            ["example_position"],
            ["examples.position"],
            name=op.f("fk_annotations_example_position"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_annotations_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotations")),
        sa.UniqueConstraint("job_id", "example_position", name=op.f("uq_annotations_job_id_example_position")),
    )
    with op.batch_alter_table("annotations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_annotations_example_position"), ["example_position"], unique=False)
        batch_op.create_index("ix_annotations_job_outcome", ["job_id", "outcome", "id"], unique=False)

    op.create_table(
        "job_events",
        sa.Column("id", types.SERIAL, autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("data", types.JSON, nullable=False),
        sa.Column("at", types.TIMESTAMP, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_events_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_events")),
    )
    with op.batch_alter_table("job_events", schema=None) as batch_op:
        batch_op.create_index("ix_job_events_job", ["job_id", "id"], unique=False)



def downgrade() -> None:
    with op.batch_alter_table("job_events", schema=None) as batch_op:
        batch_op.drop_index("ix_job_events_job")

    op.drop_table("job_events")
    with op.batch_alter_table("annotations", schema=None) as batch_op:
        batch_op.drop_index("ix_annotations_job_outcome")
        batch_op.drop_index(batch_op.f("ix_annotations_example_position"))

    op.drop_table("annotations")
    with op.batch_alter_table("adapters", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_adapters_tenant_id"))

    op.drop_table("adapters")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index("ix_jobs_tenant_kind")
        batch_op.drop_index("ix_jobs_runnable")
        batch_op.drop_index(batch_op.f("ix_jobs_dataset_id"))

    op.drop_table("jobs")
    with op.batch_alter_table("examples", schema=None) as batch_op:
        batch_op.drop_index("ix_examples_dataset_split")

    op.drop_table("examples")
    with op.batch_alter_table("teacher_replies", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_teacher_replies_created_at"))

    op.drop_table("teacher_replies")
    op.drop_table("priors")
    op.drop_table("outbox")
    with op.batch_alter_table("idempotency_keys", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_idempotency_keys_created_at"))

    op.drop_table("idempotency_keys")
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_datasets_tenant_id"))

    op.drop_table("datasets")
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_api_keys_tenant_id"))

    op.drop_table("api_keys")
