"""What needs a PostgreSQL with TLS, passwords and ICU: sslmode, wrong passwords, and emails in Turkish."""

import asyncio
import shutil
from pathlib import Path

import pytest
from sqlalchemy import Boolean, literal_column, select, text

from server.database import Database
from server.database.postgres import PostgresDriver
from tests.support.client import PASSWORD, PATHS
from tests.support.processes import RUN, SETTINGS, finished, run, serving
from tests.support.services import Postgres, system_postgres

ROLE, ROLE_PASSWORD = "someone", "pa55-of-someone"
TURKISH = "CREATE DATABASE turkish TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR'"
EMAILS = ("ILKER@example.com", "ilker@example.com", "Ilker@EXAMPLE.com")
ENCRYPTED = select(literal_column("ssl", Boolean)).select_from(text("pg_stat_ssl WHERE pid = pg_backend_pid()"))
pytestmark = pytest.mark.usefixtures("io_loop")


async def allow(server: Postgres, line: str = "") -> None:
    """Let in the superuser, and what a line of pg_hba.conf says."""
    (server.folder / "pg_hba.conf").write_text(f"host all postgres 127.0.0.1/32 trust\n{line}\n")
    server.execute("SELECT pg_reload_conf()")
    await asyncio.sleep(0.2)  # the server reads it


async def set_up_tls(server: Postgres) -> None:
    """Give a server a certificate for localhost, and the authority ca.crt that signed it."""
    folder = server.folder
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    for command in (
        "req -newkey rsa:2048 -nodes -x509 -days 2 -subj /CN=authority -keyout ca.key -out ca.crt",
        "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
        "x509 -req -days 2 -CA ca.crt -CAkey ca.key -CAcreateserial -in server.csr -extfile names -out server.crt",
    ):
        await run("openssl", *command.split(), folder=folder)
    for name in ("server.key", "server.crt"):
        shutil.chown(folder / name, folder.owner(), folder.group())
    (folder / "server.key").chmod(0o600)
    for setting in ("ssl = on", "ssl_key_file = 'server.key'", "ssl_cert_file = 'server.crt'"):
        server.execute(f"ALTER SYSTEM SET {setting}")


async def is_encrypted(url: str) -> bool:
    """Return whether the server's connections to a database are encrypted."""
    driver = PostgresDriver(url)
    try:
        ((encrypted,),) = await Database(driver, 1, 5).for_request().fetch_all(ENCRYPTED, {})
        return bool(encrypted)
    finally:
        await driver.close()


async def test_tls_is_used_as_sslmode_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with system_postgres() as server:
        await set_up_tls(server)
        server.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE_PASSWORD}'")
        await allow(server)
        url = f"postgresql://{ROLE}:{ROLE_PASSWORD}@localhost:{server.port}/postgres"
        for kind, mode, encrypted in (
            ("hostnossl", "prefer", False),
            ("hostnossl", "disable", False),
            ("hostssl", "allow", True),
            ("hostssl", "prefer", True),
            ("hostssl", "require", True),
        ):
            await allow(server, f"{kind} all {ROLE} 127.0.0.1/32 scram-sha-256")
            assert await is_encrypted(f"{url}?sslmode={mode}") == encrypted, (kind, mode)
        settings = SETTINGS | {"DATABASE_URL": f"{server.url}?sslmode=verify-full&sslrootcert=system"}
        settings["DATABASE_URL"] = settings["DATABASE_URL"].replace("127.0.0.1", "localhost")
        trusting = settings | {"SSL_CERT_FILE": str(server.folder / "ca.crt")}
        await run(*RUN, "migrate", folder=tmp_path, environment=trusting)
        process = await finished(*RUN, "migrate", folder=tmp_path, environment=settings)
        (line,) = process.events("start_failed")
        assert "certificate verify failed" in line["reason"]
        # A client certificate that cannot be read ends the attempt with TLS, and "prefer" continues without.
        await allow(server, f"host all {ROLE} 127.0.0.1/32 scram-sha-256")
        (tmp_path / ".postgresql").mkdir()
        (tmp_path / ".postgresql" / "postgresql.crt").write_text("not a certificate")
        assert not await is_encrypted(url)


async def test_wrong_password_ends_the_start_after_one_attempt(tmp_path: Path) -> None:
    async with system_postgres("log_connections = on", "lc_messages = 'C.UTF-8'") as server:
        server.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE_PASSWORD}'")
        await allow(server, f"host all {ROLE} 127.0.0.1/32 scram-sha-256")
        url = f"postgresql://{ROLE}:wr0ng@127.0.0.1:{server.port}/postgres?sslmode=disable"
        process = await finished(*RUN, folder=tmp_path, environment=SETTINGS | {"DATABASE_URL": url})
        assert process.exit_code == 1
        (line,) = process.events()
        assert line["event"] == "start_failed"
        assert "28P01: password authentication failed" in line["reason"]
        assert "wr0ng" not in process.stdout
        assert (server.folder / "server.log").read_text().count("password authentication failed") == 1


async def test_email_case_is_ignored_in_turkish_too(tmp_path: Path) -> None:
    async with system_postgres() as server:
        server.execute(TURKISH)
        settings = SETTINGS | {"DATABASE_URL": server.url.removesuffix("postgres") + "turkish"}
        async with serving(tmp_path, settings) as (_, client):
            statuses = [
                (await client.request("POST", path, {"email": email, "password": PASSWORD})).status
                for path in (PATHS[0].register, PATHS[0].login)
                for email in EMAILS
            ]
        assert statuses == [201, 409, 409, 200, 200, 200]
