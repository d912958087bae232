"""Statements on users."""

from typing import NamedTuple
from uuid import uuid4

from sqlalchemy import bindparam, func, insert, select, update

from server import clock
from server.database import RequestDatabase
from server.database.tables import users
from server.values import fold_email


class User(NamedTuple):
    """An account."""

    id: str
    email: str
    password_hash: str


_insert = insert(users).returning(users.c.id)
_update_hash = (
    update(users)
    .where(users.c.id == bindparam("user_id"), users.c.password_hash == bindparam("old_hash"))
    .values(password_hash=bindparam("new_hash"))
    .returning(users.c.id)
)
_select_by_email = select(*users.c[User._fields]).where(func.lower(users.c.email) == bindparam("folded_email"))


async def create(database: RequestDatabase, email: str, password_hash: str) -> User:
    """Store a new user; raise ``UniqueViolation`` if the email is taken, ignoring case."""
    user = User(str(uuid4()), email, password_hash)
    await database.fetch_one(_insert, {**user._asdict(), "created_at": clock.format_time(clock.now())})
    return user


async def get_by_email(database: RequestDatabase, email: str) -> User | None:
    """Return the user with this email, ignoring case, or None."""
    row = await database.fetch_one(_select_by_email, {"folded_email": fold_email(email)})
    return None if row is None else User(*row)


async def update_hash(database: RequestDatabase, user: User, password_hash: str) -> None:
    """Replace the user's password hash, unless another request has already replaced it."""
    values = {"user_id": user.id, "old_hash": user.password_hash, "new_hash": password_hash}
    await database.fetch_one(_update_hash, values)
