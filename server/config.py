"""Settings, read once from the environment; all errors are reported together."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import can_ada
import jwt
import limits
import psycopg2
from dotenv import dotenv_values
from limits import RateLimitItem
from psycopg2.extensions import parse_dsn

SQLITE_PREFIX = "sqlite:///"
# Excludes the schemes for which browsers send "null" or no Origin.
ORIGIN = re.compile(
    r"(?!about:|blob:|data:|file:|ftp:|javascript:|wss?:)[a-z][a-z0-9+.-]*://([^\x00-\x20/?#@\\]+)(?<!:)/?",
    re.IGNORECASE | re.ASCII,
)
# libpq reads the text before the first @ as user and password, unless a slash precedes it. If another @ follows, the
# password contains an @, and libpq would read the rest of the password as host or database, which appear in the log.
ONE_USER = re.compile(r"\w+://(?:[^@/]*@)?+[^@/?]*(/[^@?]*)?(\?.*)?", re.DOTALL)
SECRET_BYTES = 32  # RFC 7518 section 3.2: an HS256 key must be at least as long as its hash output
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS = ("json", "console", "ecs", "datadog", "gcp")
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class SettingError(Exception):
    """The value of a setting is not accepted; the message says which values are, and does not contain the value."""


class ConfigError(Exception):
    """Settings are missing or invalid; the message has a line for each."""


def parse_database_url(value: str) -> str:
    """Check a database URL: ``sqlite:///file.db``, or ``postgresql://`` (``postgres://``) with any libpq parameters."""
    if value.startswith(SQLITE_PREFIX):
        file = value.removeprefix(SQLITE_PREFIX)
        if not file or "?" in file or file.startswith(":"):
            raise SettingError("must name a file, like sqlite:///todo.db")
        with suppress(OSError):  # the name is too long, or the folder cannot be read
            if Path(file).parent.is_dir() and not Path(file).is_dir():
                return value
        raise SettingError("must name a file in a folder that exists")
    if not value.startswith(("postgresql://", "postgres://")):
        raise SettingError("must be like postgresql://user:password@host/database or sqlite:///todo.db")
    if not ONE_USER.fullmatch(value):
        raise SettingError("must have %40 for each @ and %2F for each slash in the user and password")
    try:
        parameters = parse_dsn(value)
    except psycopg2.ProgrammingError as error:
        # libpq's message can contain a part of the password, even where it quotes the name of an unknown parameter.
        quotable = not re.search("@|password", value.partition("?")[2])
        unknown = re.search(r'invalid URI query parameter: "(\w+)"', str(error)) if quotable else None
        raise SettingError(
            f"must have only parameters that libpq knows; {unknown[1]} is not one"
            if unknown
            else "must be a URL that libpq can read, with % only before two hexadecimal digits"
        ) from None
    _check_parameters(parameters)
    return value


def _check_parameters(parameters: dict[str, str]) -> None:
    """Check the parameters that libpq validates only when it connects, by connecting to an invalid address."""
    for name, text in parameters.items():
        is_integer = re.fullmatch(r"connect_timeout|tcp_user_timeout|keepalives\w*", name)
        if is_integer and (not re.fullmatch("-?[0-9]{1,10}", text) or abs(int(text)) >= 2**31):
            raise SettingError(f"must have a whole number of 32 bits for {name}")
    addresses = parameters.get("hostaddr", "")
    for address in filter(None, addresses.split(",")):
        try:
            ip_address(address)
        except ValueError:
            raise SettingError("must have an IP address for hostaddr") from None
    hosts = (addresses or parameters.get("host", "")).split(",")
    try:
        psycopg2.connect(**parameters | {"hostaddr": ",".join(["256.0.0.1"] * len(hosts))}, async_=True)
    except psycopg2.Error as error:
        reason = re.sub(r"could not parse network address.*\n?", "", str(error))
        if re.search(r"\bport\b", reason):
            raise SettingError("must have a port from 1 to 65535, or one for each host") from None
        if reason:
            named = re.search(r'(\w+)"? value: ', reason)
            raise SettingError(
                f"must have {f'a value of {named[1]}' if named else 'parameters'} that libpq accepts"
            ) from None


def parse_secret(value: str) -> str:
    """Check that a secret is long enough, in bytes of UTF-8, and that PyJWT can sign with it."""
    if len(value.encode()) < SECRET_BYTES:
        raise SettingError(f"must be at least {SECRET_BYTES} bytes long")
    try:
        jwt.encode({}, value, algorithm="HS256")
    except jwt.InvalidKeyError:
        raise SettingError("must be random text, not a key in PEM or SSH format") from None
    return value


def parse_origins(value: str) -> tuple[str, ...]:
    """Return the frontend's origins from a list that is separated by commas."""
    return tuple(_parse_origin(origin.strip()) for origin in value.split(","))


def _parse_origin(text: str) -> str:
    """Return an origin as browsers send it: ``scheme://host``, and the port unless it is the scheme's default.

    Browsers parse the host of http and https URLs by the URL Standard (https://url.spec.whatwg.org). For the schemes of
    apps and extensions, Chromium does the same, but WebKit only converts the host to lower case. A host for which the
    two results differ is refused.
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


def parse_rate_limit(value: str) -> RateLimitItem | None:
    """Return a limit that is written in the notation of the ``limits`` library, or None for ``off``."""
    if value.lower() == "off":
        return None
    try:
        (limit,) = limits.parse_many(value)
    except ValueError:
        raise SettingError("must be a limit like 10/minute, or off") from None
    if limit.amount == 0 or limit.get_expiry() == 0:
        raise SettingError("must allow at least one attempt, like 10/minute")
    return limit


def parse_rate_limit_storage(value: str) -> str:
    """Check the storage of the rate limits: ``memory://`` or a Redis URL."""
    if value == "memory://":
        return value
    from server.security.redis_storage import open_storage  # noqa: PLC0415  # importing redis-py costs time and memory

    try:
        open_storage(value)
    except ValueError as error:
        raise SettingError(f"must be memory://, or {error}") from None
    return value


def parse_integer(value: str, low: int, high: int) -> int:
    """Parse a whole number; only digits are allowed."""
    if not re.fullmatch("[0-9]{1,18}", value) or not low <= int(value) <= high:
        raise SettingError(f"must be a whole number from {low} to {high}")
    return int(value)


def parse_number(value: str, low: float, high: float) -> float:
    """Parse a number; only digits and a decimal point are allowed."""
    if not re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", value) or not low <= float(value) <= high:
        raise SettingError(f"must be a number from {low} to {high}")
    return float(value)


def parse_boolean(value: str) -> bool:
    """Parse a boolean, in any case."""
    return parse_choice(value, TRUE + FALSE) in TRUE


def parse_choice(value: str, choices: tuple[str, ...]) -> str:
    """Return the value in lower case; raise ``SettingError`` if that is not one of the choices."""
    if value.lower() not in choices:
        raise SettingError(f"must be one of {', '.join(choices)}")
    return value.lower()


def _check_text(value: str, value_in_file: str | None) -> str:
    """Return the value after the checks that apply to every setting."""
    if "${" in value and value == value_in_file:
        raise SettingError("must not contain ${…} in .env: variables are not expanded there")
    try:
        value.encode()
    except UnicodeEncodeError:  # Python decodes bytes that are not UTF-8 to lone surrogates (PEP 383)
        raise SettingError("must be UTF-8 text") from None
    if value != value.strip():
        raise SettingError("must not begin or end with white space")
    return value


def _setting(parser: Callable[..., Any], default: str = "", *, secret: bool = False, **options: Any) -> Any:
    return field(repr=not secret, metadata={"parser": partial(parser, **options), "default": default})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings; each field is read from the environment variable with its name in capitals (FR-060).

    If ``RATE_LIMIT_STORAGE`` is not set, the field is read from ``REDIS_URL``, which platforms set.
    """

    database_url: str = _setting(parse_database_url, secret=True)
    better_auth_secret: str = _setting(parse_secret, secret=True)
    frontend_url: tuple[str, ...] = _setting(parse_origins)
    jwt_expiration_hours: float = _setting(parse_number, "24", low=0.001, high=876000)
    port: int = _setting(parse_integer, "8000", low=0, high=65535)
    host: str = _setting(str)
    database_pool_size: int = _setting(parse_integer, "10", low=1, high=500)
    database_timeout_seconds: float = _setting(parse_number, "5", low=0.001, high=86400)
    bcrypt_rounds: int = _setting(parse_integer, "12", low=4, high=16)
    auth_rate_limit: RateLimitItem | None = _setting(parse_rate_limit, "10/minute")  # noqa: RUF009
    rate_limit_storage: str = _setting(parse_rate_limit_storage, "memory://", secret=True)
    trusted_proxy_hops: int = _setting(parse_integer, "0", low=0, high=100)
    max_body_bytes: int = _setting(parse_integer, str(1024 * 1024), low=1, high=2**31)
    require_https: bool = _setting(parse_boolean, "false")
    shutdown_seconds: float = _setting(parse_number, "25", low=0, high=86400)
    log_level: str = _setting(parse_choice, "info", choices=LOG_LEVELS)
    log_format: str = _setting(parse_choice, "json", choices=LOG_FORMATS)

    @classmethod
    def from_environment(cls) -> Self:
        """Return the settings from the environment; ``.env`` in the working directory adds variables that are not set.

        Raises:
            ConfigError: if any setting is missing or invalid (FR-061).
        """
        values: dict[str, Any] = {}
        errors: list[str] = []
        file: dict[str, str | None] = {}
        try:
            file = dotenv_values(".env", interpolate=False)
            for name, text in file.items():
                os.environ.setdefault(name, text or "")
        except (OSError, ValueError):
            errors.append(".env: must be a readable file of UTF-8 text")
        for setting in fields(cls):
            name = setting.name.upper()
            if name == "RATE_LIMIT_STORAGE" and name not in os.environ:
                name = "REDIS_URL"
            value = os.environ.get(name, setting.metadata["default"])
            try:
                values[setting.name] = setting.metadata["parser"](_check_text(value, file.get(name)))
            except SettingError as error:
                note = {None: " (it is not set)", "": " (it is empty)"}.get(os.environ.get(name), "")
                errors.append(f"{name}: {error}{note}")
        if values.get("require_https") and values.get("trusted_proxy_hops") == 0:
            errors.append("REQUIRE_HTTPS: must be false if TRUSTED_PROXY_HOPS is 0: only a proxy in front sees HTTPS")
        if errors:
            raise ConfigError("\n".join(errors))
        return cls(**values)
