"""Settings: what each takes and refuses, and that no message tells what should stay secret (FR-060, FR-061)."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import limits
import pytest

from server.config import Config, ConfigError
from tests.support.processes import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "k3ep-this-to-yourself-32-bytes-long"
REQUIRED = {
    "DATABASE_URL": "sqlite:///todo.db",
    "BETTER_AUTH_SECRET": SECRET,
    "FRONTEND_URL": "http://localhost:3000",
}
TRUE = ("true", "True", "1", "yes", "on")
FALSE = ("false", "False", "0", "no", "off")

ACCEPTED: dict[str, dict[str, Any]] = {
    "BETTER_AUTH_SECRET": {text: text for text in ("x" * 32, "ä" * 16, "x" * 1000, "=#'\" $x" * 5)},
    "FRONTEND_URL": {
        "http://localhost:3000": ("http://localhost:3000",),
        "https://app.example.com": ("https://app.example.com",),
        "https://app.example.com/": ("https://app.example.com",),
        "https://app.example.com:443,http://app.example.com:80,http://a.example:443": (
            "https://app.example.com",
            "http://app.example.com",
            "http://a.example:443",
        ),
        "HTTPS://App.Example.COM": ("https://app.example.com",),
        "https://bücher.example:8443": ("https://xn--bcher-kva.example:8443",),
        "https://faß.example": ("https://xn--fa-hia.example",),
        "http://localhost:03000": ("http://localhost:3000",),
        "http://localhost:00080": ("http://localhost",),
        "http://127.1:3000,http://0x7f.0.0.1,http://2130706433": (
            "http://127.0.0.1:3000",
            "http://127.0.0.1",
            "http://127.0.0.1",
        ),
        "http://[0:0:0:0:0:0:0:1]:3000": ("http://[::1]:3000",),
        "http://[2001:DB8::0:1]": ("http://[2001:db8::1]",),
        "https://app.example.com.": ("https://app.example.com.",),
        "capacitor://localhost": ("capacitor://localhost",),
        "Tauri://LocalHost/": ("tauri://localhost",),
        "ionic://localhost:080": ("ionic://localhost:80",),
        "app://.": ("app://.",),
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop": ("chrome-extension://abcdefghijklmnopabcdefghijklmnop",),
        "moz-extension://8b4f1c1e-5d0b-4f6e-9d5c-0d3c1b7a2e11": (
            "moz-extension://8b4f1c1e-5d0b-4f6e-9d5c-0d3c1b7a2e11",
        ),
        "https://a.example,http://b.example:81": ("https://a.example", "http://b.example:81"),
        "https://a.example/ , https://b.example/": ("https://a.example", "https://b.example"),
        "http://[::1]:3000": ("http://[::1]:3000",),
        "http://127.0.0.1": ("http://127.0.0.1",),
    },
    "JWT_EXPIRATION_HOURS": {"24": 24.0, "0.5": 0.5, "0.001": 0.001, "8760": 8760.0},
    "PORT": {"8000": 8000, "1": 1, "65535": 65535},
    "HOST": {"": "", "127.0.0.1": "127.0.0.1", "::1": "::1", "localhost": "localhost"},
    "DATABASE_POOL_SIZE": {"1": 1, "50": 50, "500": 500},
    "DATABASE_TIMEOUT_SECONDS": {"5": 5.0, "0.5": 0.5, "60": 60.0},
    "BCRYPT_ROUNDS": {"4": 4, "12": 12, "16": 16},
    "AUTH_RATE_LIMIT": {
        "10/minute": limits.parse("10/minute"),
        "5 per hour": limits.parse("5/hour"),
        "100/15minutes": limits.parse("100/15minutes"),
        "off": None,
        "OFF": None,
    },
    "RATE_LIMIT_STORAGE": {
        text: text
        for text in (
            "memory://",
            "redis://localhost:6379",
            "redis://localhost",
            "redis://localhost:/1",
            "redis://user:s3cr3t@localhost/",
            "rediss://[::1]",
            "rediss://localhost?ssl_check_hostname=false&ssl_ca_certs=/etc/redis.pem",
            "redis://:s3cr3t@localhost:6379/1",
            "rediss://u:s%2F3cr3t@redis.example:6380/0?ssl_cert_reqs=none",
            "redis+unix:///run/redis/redis.sock?db=2",
        )
    },
    "TRUSTED_PROXY_HOPS": {"0": 0, "1": 1, "3": 3},
    "MAX_BODY_BYTES": {"1": 1, "1048576": 1048576},
    "REQUIRE_HTTPS": {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)},
    "SHUTDOWN_SECONDS": {"0": 0.0, "0.5": 0.5, "25": 25.0},
    "LOG_LEVEL": {"INFO": "info", **{level: level for level in ("debug", "info", "warning", "error", "critical")}},
    "LOG_FORMAT": {"JSON": "json", **{name: name for name in ("json", "console", "ecs", "datadog", "gcp")}},
}

WHOLE_NUMBERS = ("", "x", "1.5", "1e1", "0x10", "1_0", "+1", "\u0661", "9" * 5000)
NUMBERS = ("", "x", "nan", "inf", "-inf", "1,5", "1e1", "1_0", "+1", ".5", "5.", "\u0661", "9" * 5000)
KEYS = ("-----BEGIN PUBLIC KEY-----\ns3cr3t\n-----END PUBLIC KEY-----", "ssh-ed25519 s3cr3ts3cr3ts3cr3ts3cr3t")
REFUSED = {
    "DATABASE_URL": (
        "",
        "todo.db",
        "mysql://u:s3cr3t@h/x",
        "postgresql:",
        "postgres",
        "postgresqls://u:s3cr3t@h/x",
        "postgresql+psycopg2://u:s3cr3t@h/x",
        "postgresql://u:s3cr3t@h:notaport/x",
        "postgresql://u:s3cr3t@[::1/x",
        "postgresql://u:s3cr3t%zz@h/x",
        "postgresql://u:s3cr3t@h1,h2/x?port=1,2,3",
        "postgresql://u:s3cr3t@h/x?sslmode",
        "postgresql://u:s3cr3t@h/x?sslmode=required",
        "postgresql://u:s3cr3t@h/x?channel_binding=yes",
        "postgresql://u:s3cr3t@h/x?target_session_attrs=writer",
        "postgresql://u:s3cr3t@h/x?ssl_min_protocol_version=TLSv9",
        "postgresql://u:s3cr3t@h/x?sslmode=require&sslrootcert=system",
        "postgresql://u:s3cr3t@h/x?connect_timeout=soon",
        "postgresql://u:s3cr3t@h/x?port=65536",
        "postgresql://u:s3cr3t@/x?host=h1,h2&hostaddr=192.0.2.1",
        "postgresql://u:p@s3cr3t@h/x",
        "postgresql://u:p@s3cr3t/x@h/x",
        "postgresql://u:p?@s3cr3t@h/x",
        "postgresql://u:5432/s3cr3t@h/x",
        "postgresql://u:5432,/@s3cr3t",
        "postgresql://u:s3/cr3t@h/x",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///no/such/folder/todo.db",
        "sqlite:///todo.db?mode=s3cr3t",
        f"sqlite:///{'x' * 300}.db",
    ),
    "BETTER_AUTH_SECRET": ("", "s3cr3t", "x" * 31, "ä" * 15, *KEYS),
    "FRONTEND_URL": (
        "",
        "*",
        "null",
        "app.example.com",
        "localhost:3000",
        "//app.example.com",
        "https://",
        "https:///",
        "https://*",
        "https://*.example.com",
        "https://%2A.example.com",
        "app://*",
        "https://app.example.com//",
        "https:app.example.com",
        "https:\\\\app.example.com",
        "https://app\texample.com",
        "https://\x1fapp.example.com",
        "https://xn--a",
        "https://app.example.com:65536",
        "https://256.256.256.256",
        "https://[::1",
        "1app://localhost",
        "capacitor://",
        "capacitor://bücher",
        "capacitor://127.1",
        "capacitor://localhost/path",
        "capacitor://user:s3cr3t@localhost",
        "file://",
        "file://localhost",
        "ws://localhost:3000",
        "data://localhost",
        "https://app.example.com/path",
        "https://app.example.com?query",
        "https://app.example.com#fragment",
        "https://user:s3cr3t@app.example.com",
        "https://app.example.com:port",
        "https://app.example.com:",
        "https://a.example https://b.example",
        "https://a.example,*",
        "https://a.example,,https://b.example",
        "https://a.example,",
        "javascript:alert(1)",
    ),
    "JWT_EXPIRATION_HOURS": (*NUMBERS, "0", "-1"),
    "PORT": (*WHOLE_NUMBERS, "-1", "65536", "http"),
    "DATABASE_POOL_SIZE": (*WHOLE_NUMBERS, "0", "-1", "501"),
    "DATABASE_TIMEOUT_SECONDS": (*NUMBERS, "0", "-1"),
    "BCRYPT_ROUNDS": (*WHOLE_NUMBERS, "3", "17", "31"),
    "AUTH_RATE_LIMIT": (
        "",
        "ten",
        "10",
        "10/fortnight",
        "-1/minute",
        "10/minute or so",
        "10/minute; 100/hour",
        "0/minute",
        "\uff110/minute",
    ),
    "RATE_LIMIT_STORAGE": (
        "",
        "memory",
        "nonsense://",
        "memcached://s3cr3t:11211",
        "redis",
        "redis://",
        "redis:///0",
        "redis+unix://",
        "redis://localhost:99999",
        "redis://localhost#s3cr3t",
        "redis://u:s3#cr3t@localhost",
        "redis://localhost?db=0&s3cr3t=1",
        "redis://localhost?ssl_s3cr3t=1",
        "rediss://localhost?ssl_s3cr3t=1",
        "redis://localhost?socket_timeout=60",
        "redis://user:s3cr3t@localhost:port",
        "redis://user:s3/cr3t@localhost:6379",
        "redis://user:s3cr3t@[::1:6379",
        "redis://localhost:6379?db=s3cr3t",
        "redis://localhost:6379?s3cr3t=1",
        "redis://localhost:6379?retry=s3cr3t",
        "redis://localhost:6379?credential_provider=s3cr3t",
        "redis://localhost:6379?encoding=s3cr3t",
        "redis://localhost:6379?max_connections=0",
        "redis://localhost:6379/s3cr3t",
        "rediss://localhost:6379?ssl_cert_reqs=s3cr3t",
        "redis+cluster://localhost:6379",
        "redis://user:s3cr3t@localhost:6379/\udcff",
    ),
    "TRUSTED_PROXY_HOPS": (*WHOLE_NUMBERS, "-1"),
    "MAX_BODY_BYTES": (*WHOLE_NUMBERS, "0", "-1", "1MB"),
    "REQUIRE_HTTPS": ("", "perhaps", "2"),
    "SHUTDOWN_SECONDS": (*NUMBERS, "-1"),
    "LOG_LEVEL": ("", "loud", "notset"),
    "LOG_FORMAT": ("", "xml"),
}


@pytest.fixture(autouse=True)
def _nothing_but_what_is_required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where no .env is
    for field in fields(Config):
        monkeypatch.delenv(field.name.upper(), raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)


def faults() -> list[str]:
    """Return the lines that say what is wrong."""
    with pytest.raises(ConfigError) as raised:
        Config.from_environment()
    assert raised.value.__cause__ is None
    return str(raised.value).splitlines()


@pytest.mark.requirement("FR-010", "FR-060")
def test_settings_that_are_not_given_have_their_defaults() -> None:
    assert Config.from_environment() == Config(
        database_url="sqlite:///todo.db",
        better_auth_secret=SECRET,
        frontend_url=("http://localhost:3000",),
        jwt_expiration_hours=24.0,
        port=8000,
        host="",
        database_pool_size=10,
        database_timeout_seconds=5.0,
        bcrypt_rounds=12,
        auth_rate_limit=limits.parse("10/minute"),
        rate_limit_storage="memory://",
        trusted_proxy_hops=0,
        max_body_bytes=1024 * 1024,
        require_https=False,
        shutdown_seconds=25.0,
        log_level="info",
        log_format="json",
    )


@pytest.mark.requirement("FR-060")
@pytest.mark.parametrize(("name", "text"), [(name, text) for name, values in ACCEPTED.items() for text in values])
def test_a_good_value_of_a_setting_is_accepted(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv("TRUSTED_PROXY_HOPS", "1")  # REQUIRE_HTTPS needs it
    monkeypatch.setenv(name, text)
    assert getattr(Config.from_environment(), name.lower()) == ACCEPTED[name][text]


@pytest.mark.requirement("FR-048")
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql://u:s3cr3t@h/x",
        "postgres://u:s3cr3t@h:5432/x",
        "postgresql:///x?host=/run/postgresql",
        "postgresql:///x?host=@abstract,h2&hostaddr=,192.0.2.1&port=1,2",
        "postgresql://u:s3cr3t@h/x?sslcert=/no/such/file&sslkey=/no/such/file",
        "postgresql://u:s3cr3t@h1:1,h2:2/x?target_session_attrs=read-write",
        "postgresql://u:s3cr3t@[::1]:5432/x",
        "postgresql://u:s%403cr3t%2F@h/x",
        "postgresql://u:s3cr3t@ep-x-1.eu-central-1.aws.neon.tech/x?sslmode=require&channel_binding=require",
        "postgres://u:s3cr3t@h/x?sslmode=verify-full&sslrootcert=system&connect_timeout=-1&application_name=todo",
        "sqlite:///todo.db",
        "sqlite:///./todo.db",
        "sqlite:////tmp/todo.db",
    ],
)
def test_a_good_database_url_is_taken_as_it_stands(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert Config.from_environment().database_url == url


def test_rate_limits_are_counted_where_the_platform_has_a_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:s3cr3t@redis.example:6379")
    assert Config.from_environment().rate_limit_storage == "redis://:s3cr3t@redis.example:6379"
    monkeypatch.setenv("RATE_LIMIT_STORAGE", "memory://")
    assert Config.from_environment().rate_limit_storage == "memory://"


@pytest.mark.parametrize("text", REFUSED["RATE_LIMIT_STORAGE"])
def test_a_bad_redis_of_the_platform_is_named_and_its_secret_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("REDIS_URL", text)
    (line,) = faults()
    assert line.startswith("REDIS_URL: ")
    assert "cr3t" not in line


def test_the_client_of_redis_is_loaded_only_for_a_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, server.app as app, server.config as config; config.Config.from_environment(); "
    code += "print('redis' in sys.modules)"
    for storage, loaded in (("memory://", "False"), ("redis://localhost:6379", "True")):
        monkeypatch.setenv("RATE_LIMIT_STORAGE", storage)
        command = (sys.executable, "-c", code)
        ran = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True, timeout=60)
        assert ran.stdout.strip() == loaded


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in REFUSED.items() for text in texts])
def test_a_bad_value_of_a_setting_is_named_and_its_secret_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(name, text)
    (line,) = faults()
    assert line.startswith(f"{name}: must ")
    assert "\n" not in line
    assert "cr3t" not in line
    if name == "BETTER_AUTH_SECRET" and text:
        assert text not in line


@pytest.mark.parametrize("name", [*ACCEPTED, "DATABASE_URL", "REDIS_URL"])
def test_white_space_around_a_value_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    good = next(iter((ACCEPTED | {"DATABASE_URL": ["sqlite:///todo.db"], "REDIS_URL": ["redis://localhost"]})[name]))
    for text in (f"{good}\n", f" {good}", f"{good}\u00a0"):
        monkeypatch.setenv(name, text)
        assert faults() == [f"{name}: must not begin or end with white space"]


@pytest.mark.parametrize("name", [*ACCEPTED, "DATABASE_URL"])
def test_a_message_says_what_is_accepted(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name == "HOST":  # its empty value is every address
        return
    monkeypatch.setenv(name, "")
    (line,) = faults()
    assert re.fullmatch(f"{name}: must .* \\(it is empty\\)", line)


@pytest.mark.parametrize("text", TRUE)
@pytest.mark.parametrize("hops", ["0", None])
def test_https_cannot_be_required_without_a_trusted_proxy(
    monkeypatch: pytest.MonkeyPatch, text: str, hops: str | None
) -> None:
    monkeypatch.setenv("REQUIRE_HTTPS", text)
    if hops is not None:
        monkeypatch.setenv("TRUSTED_PROXY_HOPS", hops)
    (line,) = faults()
    assert line.startswith("REQUIRE_HTTPS: ")
    assert "TRUSTED_PROXY_HOPS" in line
    monkeypatch.setenv("PORT", "http")
    assert [line.partition(": ")[0] for line in faults()] == ["PORT", "REQUIRE_HTTPS"]
    monkeypatch.delenv("PORT")
    monkeypatch.setenv("TRUSTED_PROXY_HOPS", "1")
    assert Config.from_environment().require_https


@pytest.mark.requirement("TM-T4")
@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_setting_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    (line,) = faults()
    assert re.fullmatch(f"{name}: must .* \\(it is not set\\)", line)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("sslmode=require&pgbouncer=true", "must have only parameters that libpq knows; pgbouncer is not one"),
        ("sslmode=required", "must have a value of sslmode that libpq accepts"),
        ("connect_timeout=99999999999", "must have a whole number of 32 bits for connect_timeout"),
        ("port=0", "must have a port from 1 to 65535, or one for each host"),
        ("port=5432,65536&host=h1,h2", "must have a port from 1 to 65535, or one for each host"),
    ],
)
def test_a_bad_parameter_of_postgresql_is_named(monkeypatch: pytest.MonkeyPatch, query: str, message: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:s3cr3t@/x?{query}")
    assert faults() == [f"DATABASE_URL: {message}"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3/w?cr3t=@h/x",
        "postgresql://u:s3/?cr3t=x@h/x?sslmode=require",
        "postgresql://h/x?password=s3&cr3t=1",
    ],
)
def test_a_password_is_not_taken_for_the_name_of_a_parameter(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    (line,) = faults()
    assert "cr3t" not in line


@pytest.mark.parametrize("name", [*REQUIRED, "HOST", "LOG_FORMAT"])
def test_bytes_that_are_no_text_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, f"{REQUIRED.get(name, '')}\udcff")
    assert faults() == [f"{name}: must be UTF-8 text"]


def test_the_file_names_the_storage_of_rate_limits_before_the_platform_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://redis.example:6379")
    (tmp_path / ".env").write_text("RATE_LIMIT_STORAGE=memory://\n", "utf-8")
    assert Config.from_environment().rate_limit_storage == "memory://"


@pytest.mark.parametrize("content", [b"PORT=\xff", b"PORT=80\0"])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".env").write_bytes(content)
    assert faults() == [".env: must be a readable file of UTF-8 text"]


def test_a_variable_in_a_value_of_the_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BETTER_AUTH_SECRET")
    (tmp_path / ".env").write_text(f"BETTER_AUTH_SECRET={SECRET}${{x}}\nOTHER=${{x}}\nHOST='${{x}}'\n", "utf-8")
    lines = faults()
    assert [line.partition(": ")[0] for line in lines] == ["BETTER_AUTH_SECRET", "HOST"]
    assert all("${…}" in line for line in lines)
    for name in ("BETTER_AUTH_SECRET", "HOST"):
        monkeypatch.setenv(name, f"{SECRET}$")  # the environment is before the file
    assert Config.from_environment().host == f"{SECRET}$"


@pytest.mark.requirement("FR-061")
def test_every_fault_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, texts in REFUSED.items():
        monkeypatch.setenv(name, texts[1])
    assert {*REFUSED, "HOST"} == {field.name.upper() for field in fields(Config)}
    assert [line.partition(": ")[0] for line in faults()] == list(REFUSED)
    for name in REQUIRED:
        monkeypatch.delenv(name)
    assert [line.partition(": ")[0] for line in faults()] == list(REFUSED)


def test_no_secret_shows_in_a_configs_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:s3cr3t@database.example/x")
    text = repr(Config.from_environment())
    for secret in (SECRET, "s3cr3t", "someone", "database.example"):
        assert secret not in text


def test_a_config_does_not_change() -> None:
    config = Config.from_environment()
    with pytest.raises(AttributeError):
        config.port = 1  # type: ignore[misc]
