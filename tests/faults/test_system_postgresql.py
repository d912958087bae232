"""What only a PostgreSQL with TLS, passwords and ICU can show: fallbacks of sslmode, refusals, and Turkish emails."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from server.database import Database, DatabaseRefused
from server.database.postgres import PostgresDriver
from tests.support.client import PASSWORD, PATHS
from tests.support.processes import RUN, finished, serving, started
from tests.support.services import Postgres, system_postgres

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROLE = "someone"
ROLE_PASSWORD = "pa55-of-someone"
TLS = ("ssl = on", "ssl_key_file = 'server.key'", "ssl_cert_file = 'server.crt'")
TURKISH = "CREATE DATABASE turkish TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR'"
EMAILS = ("ILKER@example.com", "ilker@example.com", "Ilker@EXAMPLE.com")
pytestmark = pytest.mark.usefixtures("io_loop")


def certify(server: Postgres) -> None:
    """Give a server a certificate for localhost, and the authority that signed it."""
    folder = server.folder
    new_key = ("openssl", "req", "-newkey", "rsa:2048", "-nodes")
    sign = ("openssl", "x509", "-req", "-days", "2", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    for command in (
        (*new_key, "-x509", "-days", "2", "-subj", "/CN=an authority", "-keyout", "ca.key", "-out", "ca.crt"),
        (*new_key, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"),
        (*sign, "-in", "server.csr", "-extfile", "names", "-out", "server.crt"),
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    for name in ("server.key", "server.crt"):
        shutil.chown(folder / name, folder.owner(), folder.group())
    (folder / "server.key").chmod(0o600)


def allow(server: Postgres, *lines: str) -> None:
    """Let in what these lines of pg_hba.conf say, and the superuser."""
    text = "\n".join(("host all postgres 127.0.0.1/32 trust", *lines, ""))
    (server.folder / "pg_hba.conf").write_text(text)
    server.execute("SELECT pg_reload_conf()")


async def uses_tls(url: str) -> bool:
    """Return whether a connection that the server makes is encrypted."""
    driver = PostgresDriver(url)
    try:
        cursor = await driver.connector.connect()
        encrypted: bool = cursor.connection.raw.info.ssl_in_use
        cursor.connection.close()
        return encrypted
    finally:
        await driver.close()


async def test_tls_falls_back_as_sslmode_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Callable[..., None]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with system_postgres() as server:
        certify(server)
        for setting in TLS:
            server.execute("ALTER SYSTEM SET " + setting)
        server.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE_PASSWORD}'")
        allow(server)
        await asyncio.sleep(0.2)
        seconds = {}
        for line, mode, encrypted in (
            ("hostnossl", "prefer", False),
            ("hostnossl", "disable", False),
            ("hostssl", "allow", True),
            ("hostssl", "prefer", True),
            ("hostssl", "require", True),
        ):
            allow(server, f"{line} all {ROLE} 127.0.0.1/32 scram-sha-256")
            await asyncio.sleep(0.2)  # until the server has read it
            started_at = time.perf_counter()
            url = f"postgresql://{ROLE}:{ROLE_PASSWORD}@localhost:{server.port}/postgres?sslmode={mode}"
            assert await uses_tls(url) == encrypted
            seconds[f"{line} {mode}"] = round(1000 * (time.perf_counter() - started_at), 1)
        # A certificate that cannot be read ends the attempt with TLS, and prefer goes on without.
        allow(server, f"host all {ROLE} 127.0.0.1/32 scram-sha-256")
        await asyncio.sleep(0.2)
        (tmp_path / ".postgresql").mkdir()
        (tmp_path / ".postgresql" / "postgresql.crt").write_text("not a certificate")
        assert not await uses_tls(f"postgresql://{ROLE}:{ROLE_PASSWORD}@localhost:{server.port}/postgres")
        report(connecting_ms=seconds)


async def test_the_systems_certificates_are_found(tmp_path: Path, environment: dict[str, str]) -> None:
    async with system_postgres() as server:
        certify(server)
        for setting in TLS:
            server.execute("ALTER SYSTEM SET " + setting)
        server.execute("SELECT pg_reload_conf()")
        url = server.url.replace("127.0.0.1", "localhost") + "?sslmode=verify-full&sslrootcert=system"
        trusting = environment | {"DATABASE_URL": url, "SSL_CERT_FILE": str(server.folder / "ca.crt")}
        process = await finished(*RUN, "migrate", folder=tmp_path, environment=trusting)
        assert process.exit_code == 0, process.stdout
        del trusting["SSL_CERT_FILE"]
        async with started(*RUN, "migrate", folder=tmp_path, environment=trusting) as process:
            line = await process.wait_for("waiting_for_database")
        assert "certificate verify failed" in line["reason"]


async def test_a_wrong_password_ends_the_start_after_one_attempt(tmp_path: Path, environment: dict[str, str]) -> None:
    async with system_postgres("log_connections = on", "lc_messages = 'C.UTF-8'") as server:
        server.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE_PASSWORD}'")
        allow(server, f"host all {ROLE} 127.0.0.1/32 scram-sha-256")
        await asyncio.sleep(0.2)
        url = f"postgresql://{ROLE}:wr0ng@127.0.0.1:{server.port}/postgres?sslmode=disable"
        process = await finished(*RUN, folder=tmp_path, environment=environment | {"DATABASE_URL": url})
        assert process.exit_code == 1
        (line,) = process.events()
        assert line["event"] == "start_failed"
        assert "28P01: password authentication failed" in line["reason"]
        assert "wr0ng" not in process.stdout
        assert (server.folder / "server.log").read_text().count("password authentication failed") == 1
        with pytest.raises(DatabaseRefused):
            await Database(PostgresDriver(url), 1, 5).for_request().ping()


async def test_emails_are_one_whatever_their_case_in_turkish(tmp_path: Path, environment: dict[str, str]) -> None:
    async with system_postgres() as server:
        server.execute(TURKISH)
        settings = environment | {"DATABASE_URL": server.url.removesuffix("postgres") + "turkish"}
        async with serving(tmp_path, settings) as (_, client):
            statuses = [
                (await client.request("POST", path, {"email": email, "password": PASSWORD})).status
                for path in (PATHS[0].register, PATHS[0].login)
                for email in EMAILS
            ]
        assert statuses == [201, 409, 409, 200, 200, 200]
