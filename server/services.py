"""The objects that all handlers share, created once at startup."""

from server.config import Config
from server.database import Database
from server.security.passwords import Passwords
from server.security.ratelimit import RateLimiter
from server.security.tokens import Tokens


class Services:
    """The shared objects; handlers read them from the application's setting ``services``."""

    def __init__(self, config: Config, database: Database) -> None:
        self.config = config
        self.database = database
        self.tokens = Tokens(config.better_auth_secret, config.jwt_expiration_hours)
        self.passwords = Passwords(config.bcrypt_rounds)
        self.rate_limiter = RateLimiter(config.auth_rate_limit, config.rate_limit_storage)
        self.refused_origins: set[str] = set()  # already logged

    def close(self) -> None:
        """Stop the hashing threads, and close the connections to Redis, but not the database."""
        self.passwords.close()
        self.rate_limiter.close()
