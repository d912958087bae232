"""Shared by the Python peers: the token check, and the pagination of a list."""

import math
import os
from uuid import UUID

import jwt

SECRET = os.environ["BETTER_AUTH_SECRET"]


def user_of(token: bytes | str | None) -> UUID | None:
    try:
        return UUID(jwt.decode(token or b"", SECRET, algorithms=["HS256"])["sub"])
    except (jwt.PyJWTError, KeyError, ValueError):
        return None


def pagination(page: int, per_page: int, total: int) -> dict[str, int]:
    return {"page": page, "per_page": per_page, "total": total, "pages": math.ceil(total / per_page)}
