"""Settings: read once from the environment into a frozen value, everything wrong reported together."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import can_ada
import jwt
import limits
import psycopg2
from dotenv import dotenv_values
from psycopg2.extensions import parse_dsn

if TYPE_CHECKING:
    from collections.abc import Callable

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
# libpq takes what stands before the first @ for the user and password, unless there is a slash before it. With another
# @ that was not their end, and a piece of the password would be the host or the database, which log lines name.
ONE_USER = re.compile(r"\w+://(?:[^@/]*@)?+[^@/?]*(/[^@?]*)?(\?.*)?", re.DOTALL)
SECRET_BYTES = 32  # RFC 7518 section 3.2: an HS256 key is no shorter than its hash
REDIS_PREFIXES = ("redis://", "rediss://", "redis+unix://")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS = ("json", "console", "ecs", "datadog", "gcp")
BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class SettingError(Exception):
    """The value of a setting is not accepted; the message says what is."""


class ConfigError(Exception):
    """Settings are missing or wrong; ``lines`` has a line for each, without its value."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def database_url(value: str) -> str:
    """Check a database URL: ``sqlite:///file.db``, or ``postgresql://`` (``postgres://``) with any libpq parameter."""
    if value.startswith(SQLITE_PREFIX):
        file = value.removeprefix(SQLITE_PREFIX)
        if not file or "?" in file or file.startswith(":"):
            raise SettingError("must name a file, like sqlite:///todo.db")
        with suppress(OSError):  # a name that is too long, a folder that cannot be looked into
            if Path(file).parent.is_dir() and not Path(file).is_dir():
                return value
        raise SettingError("must name a file in a folder that exists")
    if not value.startswith(POSTGRESQL_PREFIXES):
        raise SettingError("must be like postgresql://user:password@host/database or sqlite:///todo.db")
    if not ONE_USER.fullmatch(value):
        raise SettingError("must have %40 for an @ and %2F for a slash in the user and password")
    try:
        parameters = parse_dsn(value)
    except psycopg2.ProgrammingError as error:
        # libpq's own text can hold a piece of the password, and so can what it takes for the name of a parameter.
        quotable = not re.search("@|password", value.partition("?")[2])
        unknown = re.search(r'invalid URI query parameter: "(\w+)"', str(error)) if quotable else None
        raise SettingError(
            f"must have parameters that libpq knows; {unknown[1]} is not one"
            if unknown
            else "must be a URL that libpq can read, with % only before two hexadecimal digits"
        ) from None
    _check_parameters(parameters)
    return value


def _check_parameters(parameters: dict[str, str]) -> None:
    """Check the parameters that libpq reads only when it connects: let it connect to an invalid address."""
    hosts, ports = parameters.get("host", "").split(","), parameters.get("port", "").split(",")
    if not all(port == "" or (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536) for port in ports):
        raise SettingError("must have a port from 1 to 65535")
    places = parameters["hostaddr"].split(",") if "hostaddr" in parameters else hosts
    if len(ports) not in (1, len(places)):
        raise SettingError("must have one port, or one for each host")
    for name in INTEGERS & parameters.keys():
        if not re.fullmatch("-?[0-9]{1,10}", parameters[name]) or abs(int(parameters[name])) >= 2**31:
            raise SettingError(f"must have a whole number of 32 bits for {name}")
    try:
        psycopg2.connect(**parameters | {"hostaddr": ",".join([NO_ADDRESS] * len(places))}, async_=True).close()
    except psycopg2.Error as error:
        if not str(error).startswith(f'could not parse network address "{NO_ADDRESS}"'):
            named = re.search(r'(\w+)"? value: ', str(error))
            what = f"a value of {named[1]}" if named else "parameters"
            raise SettingError(f"must have {what} that libpq accepts") from None


def secret(value: str) -> str:
    """Check that a secret is long enough, in bytes of UTF-8, and that tokens can be signed with it."""
    if len(value.encode()) < SECRET_BYTES:
        raise SettingError(f"must be at least {SECRET_BYTES} bytes long")
    try:
        jwt.encode({}, value, algorithm="HS256")
    except jwt.InvalidKeyError:
        raise SettingError("must be random text, not a key in PEM or SSH format") from None
    return value


def origins(value: str) -> tuple[str, ...]:
    """Read the frontend's origins, separated by commas."""
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
    raise SettingError(
        "must be an origin, scheme://host[:port] like https://app.example.com, or several separated by commas; "
        "without path, query, user or *, and in ASCII unless the scheme is http or https"
    )


def rate_limit(value: str) -> RateLimitItem | None:
    """Read a limit in the notation of the ``limits`` library, or ``off``."""
    if value.lower() == "off":
        return None
    try:
        (limit,) = limits.parse_many(value)
    except ValueError:
        raise SettingError("must be a limit like 10/minute, or off") from None
    if limit.amount == 0 or limit.get_expiry() == 0:
        raise SettingError("must allow at least one attempt, like 10/minute")
    return limit


def rate_limit_storage(value: str) -> str:
    """Check where rate limits are counted, in the notation of the ``limits`` library: the process, or a Redis."""
    if value == "memory://":
        return value
    if not value.startswith(REDIS_PREFIXES):
        raise SettingError(f"must be memory://, or start with {', '.join(REDIS_PREFIXES)}")
    from server.security.redis_storage import open_storage  # noqa: PLC0415  # the client costs time and memory at start

    try:
        open_storage(value)
    except ValueError as error:
        raise SettingError(str(error)) from None
    return value


def whole(value: str, low: int, high: int) -> int:
    """Read a whole number, in digits only."""
    if not re.fullmatch("[0-9]{1,18}", value) or not low <= int(value) <= high:
        raise SettingError(f"must be a whole number from {low} to {high}")
    return int(value)


def number(value: str, low: float, high: float) -> float:
    """Read a number that may have a fraction, in digits and a point."""
    if not re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", value) or not low <= float(value) <= high:
        raise SettingError(f"must be a number from {low} to {high}")
    return float(value)


def boolean(value: str) -> bool:
    """Read true or false, in any case, or one of their synonyms."""
    if value.lower() not in BOOLEANS:
        raise SettingError("must be true or false")
    return BOOLEANS[value.lower()]


def one_of(value: str, names: tuple[str, ...]) -> str:
    """Read one of these names, in any case."""
    if value.lower() not in names:
        raise SettingError(f"must be one of {', '.join(names)}")
    return value.lower()


def _checked(value: str) -> str:
    """Return a value, and refuse what is wrong in every setting."""
    try:
        value.encode()
    except UnicodeEncodeError:  # Python hands over other bytes as lone surrogates (PEP 383)
        raise SettingError("must be UTF-8 text") from None
    if value != value.strip():
        raise SettingError("must not begin or end with white space")
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
        try:
            file = dotenv_values(".env", interpolate=False)
            for name, value in file.items():
                os.environ.setdefault(name, value or "")
        except (OSError, ValueError):
            raise ConfigError([".env: must be a readable file of UTF-8 text"]) from None
        storage = "RATE_LIMIT_STORAGE" if "RATE_LIMIT_STORAGE" in os.environ else "REDIS_URL"
        names = {each.name: each.name.upper() for each in fields(cls)} | {"rate_limit_storage": storage}
        errors: dict[str, str] = {}

        def read(parser: Callable[..., Any], name: str, default: str, **limits: Any) -> Any:
            try:
                return parser(_checked(os.environ.get(name, default)), **limits)
            except SettingError as error:
                note = {None: " (it is not set)", "": " (it is empty)"}.get(os.environ.get(name), "")
                errors[name] = f"{error}{note}"

        values = {
            "database_url": read(database_url, "DATABASE_URL", ""),
            "better_auth_secret": read(secret, "BETTER_AUTH_SECRET", ""),
            "frontend_url": read(origins, "FRONTEND_URL", ""),
            "jwt_expiration_hours": read(number, "JWT_EXPIRATION_HOURS", "24", low=0.001, high=876000),
            "port": read(whole, "PORT", "8000", low=0, high=65535),
            "host": read(str, "HOST", ""),
            "database_pool_size": read(whole, "DATABASE_POOL_SIZE", "10", low=1, high=500),
            "database_timeout_seconds": read(number, "DATABASE_TIMEOUT_SECONDS", "5", low=0.001, high=86400),
            "bcrypt_rounds": read(whole, "BCRYPT_ROUNDS", "12", low=4, high=16),
            "auth_rate_limit": read(rate_limit, "AUTH_RATE_LIMIT", "10/minute"),
            "rate_limit_storage": read(rate_limit_storage, storage, "memory://"),
            "trusted_proxy_hops": read(whole, "TRUSTED_PROXY_HOPS", "0", low=0, high=100),
            "max_body_bytes": read(whole, "MAX_BODY_BYTES", str(1024 * 1024), low=1, high=2**31),
            "require_https": read(boolean, "REQUIRE_HTTPS", "false"),
            "shutdown_seconds": read(number, "SHUTDOWN_SECONDS", "25", low=0, high=86400),
            "log_level": read(one_of, "LOG_LEVEL", "info", names=LOG_LEVELS),
            "log_format": read(one_of, "LOG_FORMAT", "json", names=LOG_FORMATS),
        }
        if values["require_https"] and values["trusted_proxy_hops"] == 0:
            errors["REQUIRE_HTTPS"] = "must be false where TRUSTED_PROXY_HOPS is 0: only a proxy in front sees HTTPS"
        for name in names.values():
            if "${" in (file.get(name) or "") and file[name] == os.environ[name]:
                errors[name] = "must not have ${…} in .env, where nothing is put in its place"
        if errors:
            raise ConfigError([f"{name}: {errors[name]}" for name in names.values() if name in errors])
        return cls(**values)
