"""What handlers need in addition to the request, created once at start."""

from server.config import Config
from server.database import Database
from server.security.passwords import Passwords
from server.security.ratelimit import RateLimiter
from server.security.tokens import Tokens


class Services:
    """The application's setting ``services``, which handlers read."""

    def __init__(self, config: Config, database: Database) -> None:
        self.config = config
        self.database = database
        self.tokens = Tokens(config.better_auth_secret, config.jwt_expiration_hours)
        self.passwords = Passwords(config.bcrypt_rounds)
        self.rate_limiter = RateLimiter(config.auth_rate_limit, config.rate_limit_storage)
        self.refused_origins: set[str] = set()  # that were logged

    def close(self) -> None:
        """End the threads that hash passwords and the connections to Redis; the opener of the database closes it."""
        self.passwords.close()
        self.rate_limiter.close()
