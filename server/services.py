"""What handlers need in addition to the request, created once at start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from server.security.passwords import Passwords
from server.security.ratelimit import RateLimiter
from server.security.tokens import Tokens

if TYPE_CHECKING:
    from server.config import Config
    from server.database import Database


@dataclass(slots=True)
class Services:
    """Handed to the handlers as the application's setting ``services``.

    Args:
        config: the settings.
        database: where users and tasks are.
    """

    config: Config
    database: Database
    tokens: Tokens = field(init=False)
    passwords: Passwords = field(init=False)
    rate_limiter: RateLimiter = field(init=False)
    refused_origins: set[str] = field(init=False, default_factory=set)  # that were logged

    def __post_init__(self) -> None:
        self.tokens = Tokens(self.config.better_auth_secret, self.config.jwt_expiration_hours)
        self.passwords = Passwords(self.config.bcrypt_rounds)
        self.rate_limiter = RateLimiter(self.config.auth_rate_limit, self.config.rate_limit_storage)

    async def close(self) -> None:
        """End the threads of the hashes and the connections of the limits; the database is its opener's to close."""
        self.passwords.close()
        await self.rate_limiter.close()
