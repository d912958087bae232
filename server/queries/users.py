"""Statements on users."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from sqlalchemy import bindparam, func, insert, select, update

from server import clock
from server.database.tables import users
from server.values import fold_email

if TYPE_CHECKING:
    from server.database import RequestDatabase


class User(NamedTuple):
    """An account."""

    id: str
    email: str
    password_hash: str


_columns = (users.c.id, users.c.email, users.c.password_hash)
_insert = insert(users).returning(users.c.id)
_update_hash = (
    update(users)
    .where(users.c.id == bindparam("user_id"), users.c.password_hash == bindparam("old_hash"))
    .values(password_hash=bindparam("new_hash"))
    .returning(users.c.id)
)
_select_by_email = select(*_columns).where(func.lower(users.c.email) == bindparam("folded_email"))


async def create(database: RequestDatabase, email: str, password_hash: str) -> User:
    """Store a new user.

    Raises:
        UniqueViolation: if the email, in any case, is taken.
    """
    user = User(str(uuid4()), email, password_hash)
    await database.fetch_one(_insert, {**user._asdict(), "created_at": clock.format_time(clock.now())})
    return user


async def get_by_email(database: RequestDatabase, email: str) -> User | None:
    """Return the user of an email, whatever its case."""
    row = await database.fetch_one(_select_by_email, {"folded_email": fold_email(email)})
    return None if row is None else User(*row)


async def update_hash(database: RequestDatabase, user: User, password_hash: str) -> None:
    """Replace the user's hash, unless another request has replaced it first."""
    await database.fetch_one(
        _update_hash, {"user_id": user.id, "old_hash": user.password_hash, "new_hash": password_hash}
    )
