"""The two tables, for statements and for the migrations' test; the migrations themselves are in ``sql/``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Interval,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    false,
    func,
)

from server.clock import format_time

if TYPE_CHECKING:
    from sqlalchemy import Dialect

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Timestamp(TypeDecorator[str]):
    """A moment: ``timestamptz`` on PostgreSQL, whole microseconds since 1970 on SQLite, which knows no such type."""

    impl = DateTime(timezone=True).with_variant(BigInteger(), "sqlite")
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """Turn a moment into what the driver takes."""
        if value is None or dialect.name != "sqlite":
            return value
        return (datetime.fromisoformat(value) - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Turn what the driver gives into a moment."""
        return value if value is None or dialect.name != "sqlite" else format_time(_EPOCH + value * _MICROSECOND)


class Duration(TypeDecorator[timedelta]):
    """A distance between moments, in the same two forms."""

    impl = Interval().with_variant(BigInteger(), "sqlite")
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> Any:
        """Turn a distance into what the driver takes."""
        return value if value is None or dialect.name != "sqlite" else value // _MICROSECOND


metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    }
)

users = Table(
    "users",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    # With the collation "C", lower() changes ASCII letters only, as it does on SQLite, whatever the database's locale.
    Column("email", String(254).with_variant(String(254, collation="C"), "postgresql"), nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)
Index("users_email_key", func.lower(users.c.email), unique=True)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("title", String(255), nullable=False),
    Column("description", Text),
    Column("completed", Boolean, nullable=False, server_default=false()),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("idempotency_key", String(255).with_variant(String(255, collation="C"), "postgresql")),
    Column("idempotency_hash", String(64)),  # of what the request with the key asked for
)
Index("tasks_user_id_created_at_id_idx", tasks.c.user_id, tasks.c.created_at.desc(), tasks.c.id.desc())
HAS_KEY = tasks.c.idempotency_key.is_not(None)
Index(
    "tasks_user_id_idempotency_key_key",
    *(tasks.c.user_id, tasks.c.idempotency_key),
    unique=True,
    postgresql_where=HAS_KEY,
    sqlite_where=HAS_KEY,
)
