"""The two tables, as the statements use them. The migrations in ``sql/`` create them; a test compares them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from server.clock import format_time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Timestamp(sa.TypeDecorator[str]):
    """A time as text in Python, ``timestamptz`` in PostgreSQL, and microseconds since 1970 in SQLite."""

    impl = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> Any:
        """Convert a time to the type that the driver expects."""
        if value is None or dialect.name != "sqlite":
            return value
        return (datetime.fromisoformat(value) - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        """Convert a time from the type that the driver returns."""
        return value if value is None or dialect.name != "sqlite" else format_time(_EPOCH + value * _MICROSECOND)


class Duration(sa.TypeDecorator[timedelta]):
    """A difference between times: ``interval`` on PostgreSQL, microseconds on SQLite."""

    impl = sa.Interval().with_variant(sa.BigInteger(), "sqlite")
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, dialect: sa.Dialect) -> Any:
        """Convert a duration to the type that the driver expects."""
        return value if value is None or dialect.name != "sqlite" else value // _MICROSECOND


def _ascii(length: int) -> sa.String:
    """Return a type for ASCII text: with the collation "C", lower() changes ASCII letters only, as on SQLite."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


metadata = sa.MetaData()

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Uuid(as_uuid=False), primary_key=True),
    sa.Column("email", _ascii(254), nullable=False),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
)
sa.Index("users_email_key", sa.func.lower(users.c.email), unique=True)

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", sa.Uuid(as_uuid=False), primary_key=True),
    sa.Column("user_id", sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("title", sa.String(255), nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("completed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.Column("idempotency_key", _ascii(255)),
    sa.Column("idempotency_hash", sa.String(64)),  # of the title and description that the task was created with
)
sa.Index("tasks_user_id_created_at_id_idx", tasks.c.user_id, tasks.c.created_at.desc(), tasks.c.id.desc())
HAS_KEY = tasks.c.idempotency_key.is_not(None)
sa.Index(
    "tasks_user_id_idempotency_key_key",
    *(tasks.c.user_id, tasks.c.idempotency_key),
    unique=True,
    postgresql_where=HAS_KEY,
    sqlite_where=HAS_KEY,
)
