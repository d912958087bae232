"""Settings: which values are accepted and refused, and that no message shows a secret (FR-060, FR-061)."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import limits
import pytest

from server.config import Config, ConfigError

SECRET = "k3ep-this-to-yourself-32-bytes-long"
REQUIRED = {"DATABASE_URL": "sqlite:///x", "BETTER_AUTH_SECRET": SECRET, "FRONTEND_URL": "http://localhost:3000"}
ORIGINS = {
    "http://localhost:3000": "http://localhost:3000",
    "https://app.example.com/": "https://app.example.com",
    "https://a.example:443,http://b.example:80,http://c.example:443": "https://a.example,http://b.example,http://c.example:443",
    "https://a.example/ , https://b.example/": "https://a.example,https://b.example",
    "HTTPS://App.Example.COM.": "https://app.example.com.",
    "https://bücher.example:8443": "https://xn--bcher-kva.example:8443",
    "https://faß.example": "https://xn--fa-hia.example",
    "http://localhost:00080": "http://localhost",
    "http://127.1:3000,http://0x7f.0.0.1,http://2130706433": "http://127.0.0.1:3000,http://127.0.0.1,http://127.0.0.1",
    "http://[2001:DB8::0:1]:3000": "http://[2001:db8::1]:3000",
    "capacitor://localhost": "capacitor://localhost",
    "Tauri://LocalHost/": "tauri://localhost",
    "ionic://localhost:080": "ionic://localhost:80",
    "app://.": "app://.",
    "moz-extension://8b4f1c1e-5d0b-4f6e-9d5c-0d3c1b7a2e11": "moz-extension://8b4f1c1e-5d0b-4f6e-9d5c-0d3c1b7a2e11",
}
DATABASE_URLS = """
    postgresql:// postgresql://u:s3cr3t@h/x postgres://u:s3cr3t@h:65535/x postgresql:///x?host=/run/postgresql
    postgresql:///x?host=@abstract,h2&hostaddr=,192.0.2.1&port=1,2 postgresql://u:s3cr3t@h/x?sslcert=/no/such/file
    postgresql://u:s3cr3t@h1:1,h2:2/x?target_session_attrs=read-write postgresql://u:s3cr3t@[::1]:5432/x
    postgresql://u:s%403cr3t%2F@h/x postgresql://u:s3cr3t@h1,h2/x?hostaddr= postgresql:///x?hostaddr=::1,fe80::1%25lo
    postgresql://u:s3cr3t@ep-x-1.eu-central-1.aws.neon.tech/x?sslmode=require&channel_binding=require
    postgres://u:s3cr3t@h/x?sslmode=verify-full&sslrootcert=system&connect_timeout=-1&application_name=todo
    sqlite:///todo.db sqlite:///./todo.db sqlite:////tmp/todo.db
"""
REDIS_URLS = """
    redis://localhost:6379 redis://localhost redis://localhost:/1 redis://user:s3cr3t@localhost/ rediss://[::1]
    rediss://localhost?ssl_check_hostname=false&ssl_ca_certs=/etc/redis.pem redis://:s3cr3t@localhost:6379/1
    rediss://u:s%2F3cr3t@redis.example:6380/0?ssl_cert_reqs=none redis+unix:///run/redis/redis.sock?db=2
"""
TRUE, FALSE = ("true", "True", "1", "yes", "on"), ("false", "False", "0", "no", "off")
ACCEPTED: dict[str, dict[str, Any]] = {
    "DATABASE_URL": {url: url for url in DATABASE_URLS.split()},
    "BETTER_AUTH_SECRET": {text: text for text in ("x" * 32, "ä" * 16, "x" * 1000, "=#'\" $x" * 5)},
    "FRONTEND_URL": {text: tuple(origins.split(",")) for text, origins in ORIGINS.items()},
    "JWT_EXPIRATION_HOURS": {"24": 24.0, "0.5": 0.5, "0.001": 0.001, "876000": 876000.0},
    "PORT": {"8000": 8000, "0": 0, "65535": 65535},
    "HOST": {"": "", "127.0.0.1": "127.0.0.1", "::1": "::1"},
    "DATABASE_POOL_SIZE": {"1": 1, "500": 500},
    "DATABASE_TIMEOUT_SECONDS": {"0.001": 0.001, "86400": 86400.0},
    "BCRYPT_ROUNDS": {"4": 4, "16": 16},
    "AUTH_RATE_LIMIT": {"5 per hour": limits.parse("5/hour"), "9/15minutes": limits.parse("9/15minutes"), "OFF": None},
    "RATE_LIMIT_STORAGE": {url: url for url in ("memory://", *REDIS_URLS.split())},
    "TRUSTED_PROXY_HOPS": {"0": 0, "1": 1, "100": 100},
    "MAX_BODY_BYTES": {"1": 1, "2147483648": 2**31},
    "REQUIRE_HTTPS": {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)},
    "SHUTDOWN_SECONDS": {"0": 0.0, "0.5": 0.5, "86400": 86400.0},
    "LOG_LEVEL": {"INFO": "info", **{level: level for level in ("debug", "info", "warning", "error", "critical")}},
    "LOG_FORMAT": {"JSON": "json", **{name: name for name in ("json", "console", "ecs", "datadog", "gcp")}},
}

BAD_DATABASE_URLS = """
    todo.db mysql://u:s3cr3t@h/x postgresql: postgresqls://u:s3cr3t@h/x postgresql+psycopg2://u:s3cr3t@h/x
    postgresql://u:s3cr3t@h:notaport/x postgresql://u:s3cr3t@[::1/x postgresql://u:s3cr3t%zz@h/x
    postgresql://u:s3cr3t@h1,h2/x?port=1,2,3 postgresql://u:s3cr3t@h/x?port=65536 postgresql://u:s3cr3t@h/x?sslmode
    postgresql://u:s3cr3t@h/x?sslmode=required postgresql://u:s3cr3t@h/x?channel_binding=yes
    postgresql://u:s3cr3t@h/x?target_session_attrs=writer postgresql://u:s3cr3t@h/x?ssl_min_protocol_version=TLSv9
    postgresql://u:s3cr3t@h/x?sslmode=require&sslrootcert=system postgresql://u:s3cr3t@h/x?connect_timeout=soon
    postgresql://u:s3cr3t@/x?host=h1,h2&hostaddr=192.0.2.1 postgresql://u:p@s3cr3t@h/x postgresql://u:p@s3cr3t/x@h/x
    postgresql://u:p?@s3cr3t@h/x postgresql://u:5432/s3cr3t@h/x postgresql://u:5432,/@s3cr3t postgresql://u:s3/cr3t@h/x
    postgresql://u:s3cr3t@h/x?hostaddr=localhost postgresql://u:s3cr3t@h1,h2/x?hostaddr=192.0.2.1,192.0.2
    postgresql://u:s3/w?cr3t=@h/x postgresql://u:s3/?cr3t=x@h/x?sslmode=require postgresql://h/x?password=s3&cr3t=1
    sqlite:// sqlite:/// sqlite:///:memory: sqlite:///no/such/folder/todo.db sqlite:///todo.db?mode=s3cr3t
"""
BAD_ORIGINS = """
    * null app.example.com localhost:3000 //app.example.com https:// https:/// https://* https://*.example.com
    https://%2A.example.com app://* https://app.example.com// https:app.example.com https:\\\\app.example.com
    https://xn--a https://app.example.com:65536 https://256.256.256.256 https://[::1 1app://localhost
    capacitor:// capacitor://bücher capacitor://127.1 capacitor://localhost/path capacitor://user:s3cr3t@localhost
    file://localhost ws://localhost:3000 data://localhost https://app.example.com/path https://app.example.com?query
    https://app.example.com#fragment https://user:s3cr3t@app.example.com https://app.example.com:port
    https://app.example.com: https://a.example,* https://a.example,,https://b.example https://a.example,
    javascript:alert(1)
"""
BAD_REDIS_URLS = """
    memory nonsense:// memcached://s3cr3t:11211 redis redis:// redis:///0 redis+unix:// redis://localhost:99999
    redis://localhost#s3cr3t redis://u:s3#cr3t@localhost redis://localhost?db=0&s3cr3t=1 redis://localhost?ssl_s3cr3t=1
    rediss://localhost?ssl_s3cr3t=1 redis://localhost?socket_timeout=60 redis://user:s3cr3t@localhost:port
    redis://user:s3/cr3t@localhost:6379 redis://user:s3cr3t@[::1:6379 redis://localhost:6379?db=s3cr3t
    redis://localhost:6379?retry=s3cr3t redis://localhost:6379?credential_provider=s3cr3t
    redis://localhost:6379?encoding=s3cr3t redis://localhost:6379?max_connections=0 redis://localhost:6379/s3cr3t
    rediss://localhost:6379?ssl_cert_reqs=s3cr3t redis+cluster://localhost:6379
"""
NOT_WHOLE = ("", "x", "1.5", "1e1", "0x10", "1_0", "+1", "-1", "\u0661", "9" * 5000)
NOT_NUMBERS = ("", "x", "nan", "inf", "1,5", "1e1", "1_0", "+1", "-1", ".5", "5.", "\u0661", "9" * 5000)
KEYS = ("-----BEGIN PUBLIC KEY-----\ns3cr3t\n-----END PUBLIC KEY-----", "ssh-ed25519 s3cr3ts3cr3ts3cr3ts3cr3t")
BAD_LIMITS = ("ten", "10", "10/fortnight", "-1/minute", "10/minute or so", "10/minute; 100/hour", "0/minute")
REFUSED = {
    "DATABASE_URL": ("", *BAD_DATABASE_URLS.split(), f"sqlite:///{'x' * 300}.db"),
    "BETTER_AUTH_SECRET": ("", "s3cr3t", "x" * 31, "ä" * 15, *KEYS),
    "FRONTEND_URL": ("", "https://a\tb.c", "https://\x1fa.b", "https://a.b https://c.d", *BAD_ORIGINS.split()),
    "JWT_EXPIRATION_HOURS": (*NOT_NUMBERS, "0", "876000.1"),
    "PORT": (*NOT_WHOLE, "65536"),
    "DATABASE_POOL_SIZE": (*NOT_WHOLE, "0", "501"),
    "DATABASE_TIMEOUT_SECONDS": (*NOT_NUMBERS, "0", "86401"),
    "BCRYPT_ROUNDS": (*NOT_WHOLE, "3", "17"),
    "AUTH_RATE_LIMIT": ("", *BAD_LIMITS, "\uff110/minute"),
    "RATE_LIMIT_STORAGE": ("", *BAD_REDIS_URLS.split(), "redis://user:s3cr3t@localhost:6379/\udcff"),
    "TRUSTED_PROXY_HOPS": (*NOT_WHOLE, "101"),
    "MAX_BODY_BYTES": (*NOT_WHOLE, "0", "1MB"),
    "REQUIRE_HTTPS": ("", "perhaps", "2"),
    "SHUTDOWN_SECONDS": (*NOT_NUMBERS, "86401"),
    "LOG_LEVEL": ("", "loud", "notset"),
    "LOG_FORMAT": ("", "xml"),
}


@pytest.fixture(autouse=True)
def _required_settings_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # a folder without .env
    for name in (*(field.name.upper() for field in fields(Config)), "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)


def errors() -> list[str]:
    """Return the lines that say what is wrong."""
    with pytest.raises(ConfigError) as raised:
        Config.from_environment()
    assert raised.value.__cause__ is None
    return str(raised.value).splitlines()


@pytest.mark.requirement("FR-048", "FR-060")
@pytest.mark.parametrize(("name", "text"), [(name, text) for name, values in ACCEPTED.items() for text in values])
def test_valid_value_is_accepted(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv("TRUSTED_PROXY_HOPS", "1")  # REQUIRE_HTTPS needs it
    monkeypatch.setenv(name, text)
    assert getattr(Config.from_environment(), name.lower()) == ACCEPTED[name][text]


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in REFUSED.items() for text in texts])
def test_invalid_value_is_named_without_its_secret(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    (line,) = errors()
    assert re.fullmatch(f"{name}: must .*", line)
    assert line.endswith(" (it is empty)") == (not text)
    assert "cr3t" not in line
    assert name != "BETTER_AUTH_SECRET" or not text or text not in line


@pytest.mark.requirement("TM-T4")
@pytest.mark.parametrize("name", REQUIRED)
def test_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    (line,) = errors()
    assert re.fullmatch(f"{name}: must .* \\(it is not set\\)", line)


@pytest.mark.requirement("FR-061")
def test_all_errors_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, texts in REFUSED.items():
        monkeypatch.setenv(name, texts[1])
    assert {*REFUSED, "HOST"} == {field.name.upper() for field in fields(Config)}
    assert [line.partition(": ")[0] for line in errors()] == list(REFUSED)
    for name in REQUIRED:
        monkeypatch.delenv(name)
    assert [line.partition(": ")[0] for line in errors()] == list(REFUSED)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("sslmode=require&pgbouncer=true", "must have only parameters that libpq knows; pgbouncer is not one"),
        ("sslmode=required", "must have a value of sslmode that libpq accepts"),
        ("connect_timeout=2147483648", "must have a whole number of 32 bits for connect_timeout"),
        ("port=0", "must have a port from 1 to 65535, or one for each host"),
        ("port=5432,65536&host=h1,h2", "must have a port from 1 to 65535, or one for each host"),
    ],
)
def test_invalid_libpq_parameter_is_named(monkeypatch: pytest.MonkeyPatch, query: str, message: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:s3cr3t@/x?{query}")
    assert errors() == [f"DATABASE_URL: {message}"]


def test_white_space_and_invalid_utf_8_are_refused_in_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, values in {**ACCEPTED, "REDIS_URL": ["redis://localhost"]}.items():
        good = next(iter(values))
        for text in (f"{good}\n", f" {good}", f"{good}\u00a0"):
            with monkeypatch.context() as patch:
                patch.setenv(name, text)
                assert errors() == [f"{name}: must not begin or end with white space"]
                patch.setenv(name, f"{good}\udcff")
                assert errors() == [f"{name}: must be UTF-8 text"]


def test_https_cannot_be_required_without_a_trusted_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUIRE_HTTPS", "true")
    (line,) = errors()
    assert line.startswith("REQUIRE_HTTPS: must be false if TRUSTED_PROXY_HOPS is 0")
    monkeypatch.setenv("PORT", "http")
    assert [line.partition(": ")[0] for line in errors()] == ["PORT", "REQUIRE_HTTPS"]


def test_redis_url_is_the_default_of_rate_limit_storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://user:s3cr3t@localhost:port")
    (line,) = errors()
    assert line.startswith("REDIS_URL: ")
    assert "cr3t" not in line
    monkeypatch.setenv("REDIS_URL", "redis://:s3cr3t@redis.example:6379")
    assert Config.from_environment().rate_limit_storage == "redis://:s3cr3t@redis.example:6379"
    (tmp_path / ".env").write_text("RATE_LIMIT_STORAGE=memory://\n", "utf-8")
    assert Config.from_environment().rate_limit_storage == "memory://"


@pytest.mark.parametrize("content", [b"PORT=\xff", b"PORT=80\0"])
def test_env_file_must_be_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".env").write_bytes(content)
    monkeypatch.setenv("LOG_LEVEL", "loud")
    assert [line.partition(": must ")[0] for line in errors()] == [".env", "LOG_LEVEL"]


def test_env_file_has_no_variables_and_yields_to_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BETTER_AUTH_SECRET")
    (tmp_path / ".env").write_text(f"BETTER_AUTH_SECRET={SECRET}${{x}}\nOTHER=${{x}}\nHOST='${{x}}'\n", "utf-8")
    lines = errors()
    assert [line.partition(": ")[0] for line in lines] == ["BETTER_AUTH_SECRET", "HOST"]
    assert all("${…}" in line for line in lines)
    for name in ("BETTER_AUTH_SECRET", "HOST"):
        monkeypatch.setenv(name, f"{SECRET}$")
    assert Config.from_environment().host == f"{SECRET}$"


def test_repr_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:s3cr3t@database.example/x")
    monkeypatch.setenv("REDIS_URL", "redis://:s3cr3t@redis.example:6379")
    text = repr(Config.from_environment())
    for secret in (SECRET, "s3cr3t", "someone", "database.example", "redis.example"):
        assert secret not in text
