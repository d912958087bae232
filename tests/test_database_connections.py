"""Connections to PostgreSQL: which address is tried when, names, how many there are, and when they are closed."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import ssl
import threading
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from psycopg2.extensions import parse_dsn
from sqlalchemy import func, literal, select

from server.database import Database, DatabaseRefused, DatabaseUnavailable, libpq_parameters
from server.database import postgres as postgres_module
from server.database.aiopg_connection import ATTEMPT_DELAY_SECONDS
from server.database.postgres import PostgresDriver
from tests.conftest import execute
from tests.support.processes import Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

TIMEOUT_SECONDS = 5.0
CONNECTIONS = 10
LIMIT = 3
ONE = select(literal(1))
SLEEP = select(func.pg_sleep(0.05))
SILENT, REFUSING, GOOD = "127.0.0.2", "127.0.0.3", "127.0.0.1"
NAME = "database.invalid"
pytestmark = pytest.mark.usefixtures("io_loop")


@asynccontextmanager
async def opened(url: str, connections: int = CONNECTIONS) -> AsyncIterator[tuple[Database, PostgresDriver]]:
    driver = PostgresDriver(url)
    try:
        yield Database(driver, connections, TIMEOUT_SECONDS), driver
    finally:
        await driver.close()


async def seconds_of(database: Database) -> float:
    """Return how long a statement takes."""
    clock = asyncio.get_running_loop().time
    started = clock()
    assert await database.for_request().fetch_all(ONE, {}) == [(1,)]
    return clock() - started


@asynccontextmanager
async def addresses(url: str) -> AsyncIterator[str]:
    """Let the server be reached at GOOD, and clients wait for ever at SILENT, on one port; return the URL of a host."""
    async with Gate(url, "") as gate:
        await gate.open()
        port = urlsplit(gate.url).port

        async def never_respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()  # until the client goes
            writer.close()

        async with await asyncio.start_server(never_respond, SILENT, port):
            yield gate.url.replace(GOOD, "%s")


# Addresses


@pytest.mark.parametrize("host", [f"{REFUSING},{GOOD}", f"{SILENT},{GOOD}", f"{REFUSING},{SILENT},{GOOD}"])
@pytest.mark.parametrize("parameter", ["host", "hostaddr"])
async def test_the_first_address_that_accepts_is_used_and_tried_first_from_then_on(
    empty_postgresql_url: str, host: str, parameter: str
) -> None:
    async with addresses(empty_postgresql_url) as url:
        parts = urlsplit(url % GOOD)
        port, user = parts.port, parts.netloc.partition("@")[0]
        ports = ",".join([str(port)] * len(host.split(",")))
        listed = f"postgresql://{user}@/{parts.path[1:]}?{parameter}={host}&port={ports}"
        async with opened(listed) as (database, driver):
            delay = ATTEMPT_DELAY_SECONDS * (SILENT in host)
            assert delay <= await seconds_of(database) < delay + 1
            await driver.close()
            assert await seconds_of(database) < ATTEMPT_DELAY_SECONDS


async def test_an_attempt_has_what_is_left_of_the_deadline_however_many_addresses_there_are(
    empty_postgresql_url: str,
) -> None:
    async with addresses(empty_postgresql_url) as url:
        hosts = ",".join([GOOD, *(f"127.0.0.{n}" for n in range(10, 20))])
        parts = urlsplit(url % GOOD)
        database_url = url % GOOD
        database_url = database_url.replace(f"{GOOD}:{parts.port}", hosts) + f"?port={parts.port}"
        async with opened(database_url) as (database, _):
            await database.for_request().fetch_all(ONE, {})


async def test_attempts_that_lose_leave_nothing_open(empty_postgresql_url: str) -> None:
    async with addresses(empty_postgresql_url) as url:
        parts = urlsplit(url % GOOD)
        listed = url % f"{SILENT}:{parts.port},{REFUSING}:{parts.port},{GOOD}"
        async with opened(listed) as (database, driver):
            await seconds_of(database)
            await driver.close()
            await asyncio.sleep(0.1)
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # the folder itself is one of them
            for _ in range(5):
                driver.connector.last_good = None
                await seconds_of(database)
                await driver.close()
            with pytest.raises(DatabaseUnavailable):
                await Database(PostgresDriver(url % SILENT), 1, 0.1).for_request().fetch_all(ONE, {})
            await asyncio.sleep(0.1)
            assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


@pytest.mark.parametrize(("url", "state"), [("nobody@/postgres", "28000"), ("postgres@/nothing", "3D000")])
async def test_a_server_that_refuses_for_good_says_so_by_its_sqlstate(
    postgresql_server: str, url: str, state: str
) -> None:
    host = parse_dsn(postgresql_server)["host"]
    async with opened(f"postgresql://{url}?host={host}") as (database, _):
        with pytest.raises(DatabaseRefused, match=f":  {state}: [^\n]+$"):
            await database.for_request().fetch_all(ONE, {})


def test_the_systems_certificates_are_where_python_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, "of the test")
    libpq_parameters("postgresql://h/x?sslrootcert=system")
    assert (os.environ["SSL_CERT_FILE"], os.environ["SSL_CERT_DIR"]) == ("of the test", "of the test")
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name)
    found = ssl.get_default_verify_paths()
    names = {"SSL_CERT_FILE": found.cafile, "SSL_CERT_DIR": found.capath}
    libpq_parameters("postgresql://h/x?sslmode=require")
    assert not names.keys() & os.environ.keys()
    libpq_parameters("postgresql://h/x?sslrootcert=system")
    assert {name: os.environ.get(name) for name in names} == names
    assert any(names.values())


# Names


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Counter[str], threading.Event]]:
    """A resolver that knows NAME, and does not respond about any other name until the event is set; and its calls."""
    calls: Counter[str] = Counter()
    responds = threading.Event()

    def getaddrinfo(name: str, *_arguments: object, **_options: object) -> list[Any]:
        calls[name] += 1
        if name != NAME:
            responds.wait(TIMEOUT_SECONDS)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (GOOD, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield calls, responds
    responds.set()


async def test_look_ups_that_hang_delay_no_statement(
    empty_postgresql_url: str, resolver: tuple[Counter[str], threading.Event]
) -> None:
    calls, responds = resolver
    loop = asyncio.get_running_loop()
    async with Gate(empty_postgresql_url, "") as gate:
        await gate.open()
        hanging = [loop.run_in_executor(None, responds.wait, TIMEOUT_SECONDS) for _ in range(100)]  # of other parts
        port, database_name = urlsplit(gate.url).port, urlsplit(gate.url).path
        async with (
            opened(gate.url.replace(GOOD, NAME)) as (named, _),
            opened(gate.url) as (literal_address, _),
            opened(gate.url.replace(f"{GOOD}:{port}{database_name}", f"x.invalid:{port}{database_name}")) as (lost, _),
            opened(gate.url.replace(GOOD, f"y.invalid:{port},{GOOD}")) as (second, _),
        ):
            requests = [lost.for_request(0.5).fetch_all(ONE, {}) for _ in range(5)]
            failures = await asyncio.gather(*requests, return_exceptions=True)
            assert {type(failure) for failure in failures} == {DatabaseUnavailable}
            assert calls["x.invalid"] == 1
            assert await seconds_of(named) < 1
            assert await seconds_of(literal_address) < 1
            assert await seconds_of(second) < ATTEMPT_DELAY_SECONDS + 1
            assert set(calls) == {NAME, "x.invalid", "y.invalid"}
            responds.set()
            await asyncio.gather(*hanging)


# The stack


async def test_more_connections_than_the_server_has_room_for_are_waited_for(postgresql_server: str) -> None:
    role = f"limited_{secrets.token_hex(4)}"
    execute(postgresql_server, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT {LIMIT}")
    try:
        parameters = parse_dsn(postgresql_server)
        url = f"postgresql://{role}@/postgres?host={parameters['host']}"
        async with opened(url) as (database, driver):
            statements = [database.for_request().fetch_all(SLEEP, {}) for _ in range(4 * CONNECTIONS)]
            assert await asyncio.gather(*statements) == [[("",)]] * (4 * CONNECTIONS)
            assert len(driver.idle) == LIMIT
            async with opened(url) as (other, _):
                with pytest.raises(DatabaseUnavailable, match="53300"):  # it has none to wait for
                    await other.for_request().fetch_all(ONE, {})
    finally:
        execute(postgresql_server, f"DROP ROLE {role}")


async def test_connections_that_are_not_used_are_closed_the_oldest_first(
    empty_postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "IDLE_SECONDS", 0.4)
    monkeypatch.setattr(postgres_module, "SWEEP_SECONDS", 0.1)
    async with opened(empty_postgresql_url) as (database, driver):
        await asyncio.gather(*(database.for_request().fetch_all(SLEEP, {}) for _ in range(4)))
        made = [cursor for cursor, _ in driver.idle]
        assert len(made) == 4
        for _ in range(10):  # one after the other needs one connection
            await database.for_request().fetch_all(SLEEP, {})
            await asyncio.sleep(0.05)
        assert [bool(cursor.connection.closed) for cursor in made] == [True, True, True, False]
        assert [cursor for cursor, _ in driver.idle] == [made[-1]]
        await asyncio.sleep(0.7)
        assert made[-1].connection.closed
        assert driver.sweep is None  # an idle server has nothing to do
