"""Settings: read once from the environment into a frozen value, every fault reported together."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import can_ada
import limits
import psycopg2
from environs import Env, EnvValidationError, ValidationError, validate
from psycopg2.extensions import parse_dsn

if TYPE_CHECKING:
    from limits import RateLimitItem

SQLITE_PREFIX = "sqlite:///"
POSTGRESQL_PREFIXES = ("postgresql://", "postgres://")
INTEGERS = {
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
}
NO_ADDRESS = "256.0.0.1"
# Browsers send "null" or nothing for the schemes that are excluded.
ORIGIN = re.compile(
    r"(?!about:|blob:|data:|file:|ftp:|javascript:|wss?:)[a-z][a-z0-9+.-]*://([^\x00-\x20/?#@\\]+)(?<!:)/?",
    re.IGNORECASE | re.ASCII,
)
SECRET_BYTES = 32  # RFC 7518 section 3.2: an HS256 key is no shorter than its hash
REDIS_PREFIXES = ("redis://", "rediss://", "redis+unix://")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS = ("json", "console", "ecs", "datadog", "gcp")


class ConfigError(Exception):
    """The environment does not describe a server; ``lines`` says why, one setting each, without any value."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def database_url(value: str) -> str:
    """Check a database URL: ``sqlite:///file.db``, or ``postgresql://`` (``postgres://``) with any libpq parameter."""
    _check_text(value)
    if value != value.strip():
        raise ValidationError("Must not begin or end with white space.")
    if value.startswith(SQLITE_PREFIX):
        file = value.removeprefix(SQLITE_PREFIX)
        if not file or "?" in file or file.startswith(":"):
            raise ValidationError("Must name a file, like sqlite:///todo.db.")
        if not Path(file).parent.is_dir() or Path(file).is_dir():
            raise ValidationError("The SQLite file must be in a folder that exists, and be none itself.")
        return value
    if not value.startswith(POSTGRESQL_PREFIXES):
        raise ValidationError("Must start with postgresql://, postgres:// or sqlite:///.")
    try:
        parameters = parse_dsn(value)
    except psycopg2.ProgrammingError as error:
        # libpq's own text can hold a piece of the password; a parameter's name behind the last @ cannot.
        unknown = re.search(r'invalid URI query parameter: "(\w+)"', str(error))
        raise ValidationError(
            f"PostgreSQL knows no parameter {unknown[1]}."
            if unknown and "@" not in value.partition("?")[2]
            else "Not a valid PostgreSQL URL."
        ) from None
    _check_parameters(parameters)
    return value


def _check_parameters(parameters: dict[str, str]) -> None:
    """Check what libpq looks at only when it connects: let it connect to what is not an address."""
    hosts, ports = parameters.get("host", "").split(","), parameters.get("port", "").split(",")
    if any("@" in host[1:] for host in hosts):  # at its beginning it is a Unix socket's
        raise ValidationError("An @ in the user or password must be written as %40.")
    if not all(port == "" or re.fullmatch("[0-9]{1,5}", port) for port in ports):
        raise ValidationError("Not a port number.")
    places = parameters["hostaddr"].split(",") if "hostaddr" in parameters else hosts
    if len(ports) not in (1, len(places)):
        raise ValidationError("Must have one port, or as many as hosts.")
    for name in INTEGERS & parameters.keys():
        if not re.fullmatch("[0-9]+", parameters[name]):
            raise ValidationError(f"{name} must be a whole number.")
    try:
        psycopg2.connect(**parameters | {"hostaddr": ",".join([NO_ADDRESS] * len(places))}, async_=True).close()
    except psycopg2.Error as error:
        if not str(error).startswith(f'could not parse network address "{NO_ADDRESS}"'):
            named = re.search(r'(\w+)"? value: ', str(error))
            raise ValidationError(
                f"PostgreSQL knows no such value of {named[1]}." if named else "PostgreSQL's client library refuses it."
            ) from None


def _check_text(value: str) -> None:
    """Refuse bytes that are no UTF-8; Python hands them over as lone surrogates (PEP 383)."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValidationError("Must be UTF-8 text.") from None


def secret(value: str) -> str:
    """Check the length of the signing secret, in bytes of UTF-8."""
    _check_text(value)
    if len(value.encode()) < SECRET_BYTES:
        raise ValidationError(f"Must be at least {SECRET_BYTES} bytes long.")
    return value


def origins(value: str) -> tuple[str, ...]:
    """Read the frontend's origins, separated by commas."""
    _check_text(value)
    return tuple(_origin(entry.strip()) for entry in value.split(","))


def _origin(text: str) -> str:
    """Return an origin as browsers send it: ``scheme://host``, with a port unless it is the scheme's default.

    Browsers read the host as the URL Standard says (https://url.spec.whatwg.org). With the schemes of apps and
    extensions Chromium reads it like that of HTTP, WebKit leaves it as it is, and both write it in lower case: accept
    what comes out the same.
    """
    if match := ORIGIN.fullmatch(text):
        with suppress(ValueError):
            url = can_ada.parse(text)
            host = can_ada.parse(f"http://{match[1]}").hostname
            if url.hostname.lower() == host and "*" not in host:
                return f"{url.protocol}//{host}{url.port and f':{url.port}'}"
    raise ValidationError(
        "Must be an origin, scheme://host[:port] like https://app.example.com, or several separated by commas; "
        "without path, query, user or *, and in ASCII unless the scheme is http or https."
    )


def rate_limit(value: str) -> RateLimitItem | None:
    """Read a limit in the notation of the ``limits`` library, or ``off``."""
    if value.lower() == "off":
        return None
    try:
        (limit,) = limits.parse_many(value)
    except ValueError:
        raise ValidationError("Must be one limit like 10/minute, or off.") from None
    if limit.amount == 0:
        raise ValidationError("Must let somebody in; 0 attempts are none.")
    return limit


def log_level_name(value: str) -> str:
    """Read the name of a level of the ``logging`` module, in any case."""
    if value.lower() not in LOG_LEVELS:
        raise ValidationError(f"Must be one of: {', '.join(LOG_LEVELS)}.")
    return value.lower()


def rate_limit_storage(value: str) -> str:
    """Check where rate limits are counted, in the notation of the ``limits`` library: the process, or a Redis."""
    _check_text(value)
    if value == "memory://":
        return value
    if not value.startswith(REDIS_PREFIXES):
        raise ValidationError(f"Must be memory://, or start with {', '.join(REDIS_PREFIXES)}.")
    from server.security.redis_storage import open_storage  # noqa: PLC0415  # the client costs time and memory at start

    try:
        open_storage(value)
    except ValueError as error:
        raise ValidationError(str(error)) from None
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings; each field is the environment variable of its name in capitals (FR-060).

    ``rate_limit_storage`` is also read from ``REDIS_URL``, where platforms put it.
    """

    database_url: str = field(repr=False)
    better_auth_secret: str = field(repr=False)
    frontend_url: tuple[str, ...]
    jwt_expiration_hours: float
    port: int
    host: str
    database_pool_size: int
    database_timeout_seconds: float
    bcrypt_rounds: int
    auth_rate_limit: RateLimitItem | None
    rate_limit_storage: str = field(repr=False)
    trusted_proxy_hops: int
    max_body_bytes: int
    require_https: bool
    shutdown_seconds: float
    log_level: str
    log_format: str

    @classmethod
    def from_environment(cls) -> Config:
        """Read the environment, and for what it lacks the file ``.env`` of the working directory.

        Raises:
            ConfigError: with a line for each setting that is missing or wrong (FR-061).
        """
        env = Env(eager=False)
        for parser in (database_url, secret, origins, rate_limit, rate_limit_storage, log_level_name):
            env.add_parser(parser.__name__, parser)
        try:
            env.read_env(Path(".env"), recurse=False)
        except (OSError, ValueError):
            raise ConfigError([".env: Must be a readable file of UTF-8 text."]) from None
        storage = "REDIS_URL" if env.str("RATE_LIMIT_STORAGE", None) is None else "RATE_LIMIT_STORAGE"
        above_zero = validate.Range(min=0, min_inclusive=False, max=1_000_000)
        values = {
            "database_url": env.database_url("DATABASE_URL"),
            "better_auth_secret": env.secret("BETTER_AUTH_SECRET"),
            "frontend_url": env.origins("FRONTEND_URL"),
            "jwt_expiration_hours": env.float("JWT_EXPIRATION_HOURS", 24.0, validate=above_zero),
            "port": env.int("PORT", 8000, validate=validate.Range(0, 65535)),
            "host": env.str("HOST", ""),
            "database_pool_size": env.int("DATABASE_POOL_SIZE", 10, validate=validate.Range(1, 500)),
            "database_timeout_seconds": env.float("DATABASE_TIMEOUT_SECONDS", 5.0, validate=above_zero),
            "bcrypt_rounds": env.int("BCRYPT_ROUNDS", 12, validate=validate.Range(4, 16)),
            "auth_rate_limit": env.rate_limit("AUTH_RATE_LIMIT", "10/minute"),
            "rate_limit_storage": env.rate_limit_storage(storage, "memory://"),
            "trusted_proxy_hops": env.int("TRUSTED_PROXY_HOPS", 0, validate=validate.Range(0)),
            "max_body_bytes": env.int("MAX_BODY_BYTES", 1024 * 1024, validate=validate.Range(1)),
            "require_https": env.bool("REQUIRE_HTTPS", False),
            "shutdown_seconds": env.float("SHUTDOWN_SECONDS", 25.0, validate=validate.Range(0)),
            "log_level": env.log_level_name("LOG_LEVEL", "info"),
            "log_format": env.str("LOG_FORMAT", "json", validate=validate.OneOf(LOG_FORMATS)),
        }
        lines = []
        try:
            env.seal()
        except EnvValidationError as error:
            messages = cast("dict[str, list[str]]", error.error_messages)
            lines = [f"{name}: {' '.join(texts)}" for name, texts in messages.items()]
        if values["require_https"] and values["trusted_proxy_hops"] == 0:
            lines.append("REQUIRE_HTTPS: Needs TRUSTED_PROXY_HOPS of 1 or more: only a proxy in front can tell.")
        if lines:
            raise ConfigError(lines)
        return cls(**values)
