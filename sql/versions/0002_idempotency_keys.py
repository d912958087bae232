"""Idempotency keys of tasks, and emails that lower() treats the same in every locale.

The new columns are nullable and their index is partial, so that release 0.1.0 can still create tasks. On a large table
in PostgreSQL, columns and index can be created before the upgrade, the index with CONCURRENTLY.

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-29
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# With the collation "C", lower() changes ASCII letters only, as on SQLite, regardless of the database's locale.
email = sa.String(254, collation="C")
key = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
has_key = sa.text("idempotency_key IS NOT NULL")


def upgrade() -> None:
    on_postgresql = op.get_context().dialect.name == "postgresql"
    if on_postgresql:  # while an ALTER TABLE waits for its lock, all later statements wait too
        op.execute("SET LOCAL lock_timeout = '2s'")
    op.add_column("tasks", sa.Column("idempotency_key", key, nullable=True), if_not_exists=on_postgresql)
    op.add_column("tasks", sa.Column("idempotency_hash", sa.String(64), nullable=True), if_not_exists=on_postgresql)
    op.create_index(
        "tasks_user_id_idempotency_key_key",
        "tasks",
        ["user_id", "idempotency_key"],
        unique=True,
        if_not_exists=True,
        postgresql_where=has_key,
        sqlite_where=has_key,
    )
    if on_postgresql:  # last: an INSERT into tasks locks tasks before users; the reverse order could deadlock
        op.alter_column("users", "email", type_=email)  # rebuilds the index on lower(email), but not the table


def downgrade() -> None:
    op.drop_index("tasks_user_id_idempotency_key_key", "tasks")
    op.drop_column("tasks", "idempotency_hash")
    op.drop_column("tasks", "idempotency_key")
    if op.get_context().dialect.name == "postgresql":
        op.alter_column("users", "email", type_=sa.String(254))
