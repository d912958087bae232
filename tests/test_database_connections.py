"""Connections to PostgreSQL: the order of addresses, names, how many there are, and when they are closed."""

import asyncio
import os
import secrets
import socket
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import urlsplit

import pytest
from psycopg2.extensions import parse_dsn
from sqlalchemy import func, literal, select

from server.database import Database, DatabaseBusy, DatabaseRefused, DatabaseUnavailable, QueryError, libpq_parameters
from server.database import postgres as postgres_module
from server.database.aiopg_connection import ATTEMPT_DELAY_SECONDS, _first
from server.database.postgres import PostgresDriver
from tests.conftest import execute
from tests.support.processes import RUN, SETTINGS, Gate, run

TIMEOUT_SECONDS = 5.0
ONE = select(literal(1))
SLEEP, HANG = select(func.pg_sleep(0.05)), select(func.pg_sleep(60))
SILENT, REFUSING, GOOD = "127.0.0.2", "127.0.0.3", "127.0.0.1"
NAME = "database.invalid"
pytestmark = pytest.mark.usefixtures("io_loop")


@asynccontextmanager
async def opened(url: str, connections: int = 10) -> AsyncIterator[tuple[Database, PostgresDriver]]:
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
    """Serve the database at GOOD, and let SILENT accept and never respond; give the URL with ``%s`` for the host."""
    async with Gate(url) as gate:
        await gate.open()

        async def never_respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()  # until the client closes
            writer.close()

        async with await asyncio.start_server(never_respond, SILENT, urlsplit(gate.url).port):
            yield gate.url.replace(GOOD, "%s")


@pytest.mark.parametrize(("parameter", "hosts"), [("host", (SILENT, GOOD)), ("hostaddr", (REFUSING, SILENT, GOOD))])
async def test_first_address_that_accepts_is_used_from_then_on(
    empty_postgresql_url: str, parameter: str, hosts: tuple[str, ...]
) -> None:
    async with addresses(empty_postgresql_url) as url:
        parts = urlsplit(url % GOOD)
        ports = ",".join([str(parts.port)] * len(hosts))
        listed = f"postgresql://{parts.username}@{parts.path}?{parameter}={','.join(hosts)}&port={ports}"
        async with opened(listed) as (database, driver):
            delay = ATTEMPT_DELAY_SECONDS * (SILENT in hosts)
            assert delay <= await seconds_of(database) < delay + 1
            await driver.close()
            assert await seconds_of(database) < ATTEMPT_DELAY_SECONDS


async def test_unsuccessful_attempts_leave_nothing_open(empty_postgresql_url: str) -> None:
    async with addresses(empty_postgresql_url) as url:
        port = urlsplit(url % GOOD).port
        async with opened(url % f"{SILENT}:{port},{REFUSING}:{port},{GOOD}") as (database, driver):
            counts = []
            for _ in range(5):
                driver.connector.last_good = None
                await seconds_of(database)
                await driver.close()
                with pytest.raises(DatabaseUnavailable):
                    await Database(PostgresDriver(url % SILENT), 1, 0.1).for_request().fetch_all(ONE, {})
                await asyncio.sleep(0.1)
                counts.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208
            assert counts[-1] <= counts[0]


async def test_refusal_of_the_server_counts_whatever_other_addresses_do(postgresql_server: str) -> None:
    hosts = f"{parse_dsn(postgresql_server)['host']},{REFUSING}"
    async with opened(f"postgresql://unknown@/postgres?host={hosts}") as (database, _):
        with pytest.raises(DatabaseRefused):
            await database.for_request().fetch_all(ONE, {})


@pytest.mark.parametrize("message", ["no such database", "SASL authentication failed", "unsupported startup parameter"])
async def test_refusal_of_pgbouncer_is_recognised_by_its_text(message: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        error = f"SFATAL\0C08P01\0M{message}\0\0".encode()
        writer.write(b"E" + (len(error) + 4).to_bytes(4, "big") + error)
        writer.close()

    async with await asyncio.start_server(refuse, GOOD, 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(f"postgresql://{GOOD}:{port}/todo?sslmode=disable&gssencmode=disable") as (database, _):
            with pytest.raises(DatabaseRefused, match=message):
                await database.for_request().fetch_all(ONE, {})


async def test_start_migrates_at_the_address_that_responds(empty_postgresql_url: str, tmp_path: Path) -> None:
    async with addresses(empty_postgresql_url) as url:
        port = urlsplit(url % GOOD).port
        settings = {**SETTINGS, "DATABASE_URL": url % f"{SILENT}:{port},{GOOD}"}
        async with asyncio.timeout(8):  # less than CONNECT_SECONDS of a migration
            await run(*RUN, "migrate", folder=tmp_path, environment=settings)


async def test_start_migrates_where_the_variables_of_libpq_say(empty_postgresql_url: str, tmp_path: Path) -> None:
    place = parse_dsn(empty_postgresql_url)
    settings = {**SETTINGS, "PGHOST": place["host"], "DATABASE_URL": f"postgresql://{place['user']}@/{place['dbname']}"}
    await run(*RUN, "migrate", folder=tmp_path, environment=settings)


@pytest.mark.parametrize("steps", range(16))
async def test_cancelled_attempts_leave_no_connection_open(steps: int) -> None:
    connections = []

    async def attempt() -> Any:
        await asyncio.sleep(0)
        connections.append(Mock())
        return Mock(connection=connections[-1])

    race = asyncio.create_task(_first([partial(_first, [attempt]), partial(_first, [attempt])]))
    for _ in range(steps):
        await asyncio.sleep(0)
    race.cancel()
    await asyncio.wait([race])
    for _ in range(steps):
        await asyncio.sleep(0)
    kept = [] if race.cancelled() else [race.result().connection]
    assert [connection for connection in connections if not connection.close.called] == kept


def test_keepalives_are_those_of_the_url_if_it_sets_them() -> None:
    parameters = libpq_parameters("postgresql://h/x?keepalives_idle=7")
    assert (parameters["keepalives_idle"], parameters["keepalives_count"]) == ("7", "3")


def test_system_certificates_are_those_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    for name in names:
        monkeypatch.setenv(name, "of the test")
    libpq_parameters("postgresql://h/x?sslrootcert=system")
    assert [os.environ[name] for name in names] == ["of the test"] * 2
    for name in names:
        monkeypatch.delenv(name)
    found = ssl.get_default_verify_paths()
    libpq_parameters("postgresql://h/x?sslmode=require")
    assert not os.environ.keys() & set(names)
    libpq_parameters("postgresql://h/x?sslrootcert=system")
    assert [os.environ.get(name) for name in names] == [found.cafile, found.capath]
    assert found.cafile or found.capath


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Counter[str], threading.Event]]:
    """A resolver that knows NAME, and blocks for any other name until the event is set; and its calls by name."""
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


async def test_look_ups_that_hang_delay_no_other_statement(
    empty_postgresql_url: str, resolver: tuple[Counter[str], threading.Event]
) -> None:
    calls, responds = resolver
    loop = asyncio.get_running_loop()
    async with Gate(empty_postgresql_url) as gate:
        await gate.open()
        # Nor do they need the threads of asyncio, which other parts may hold.
        hanging = [loop.run_in_executor(None, responds.wait, TIMEOUT_SECONDS) for _ in range(100)]
        place = urlsplit(gate.url).netloc.partition("@")[2]
        port = urlsplit(gate.url).port
        async with (
            opened(gate.url.replace(place, f"{NAME}:{port}")) as (named, named_driver),
            opened(gate.url) as (literal_address, _),
            opened(gate.url.replace(place, f"x.invalid:{port}")) as (unknown, _),
            opened(gate.url.replace(place, f"y.invalid:{port},{place}")) as (second, _),
        ):
            requests = [unknown.for_request(seconds / 10).fetch_all(ONE, {}) for seconds in range(1, 6)]
            failures = await asyncio.gather(*requests, return_exceptions=True)
            assert {type(failure) for failure in failures} == {DatabaseUnavailable}
            assert calls["x.invalid"] == 1
            assert await seconds_of(named) < 1
            assert await seconds_of(literal_address) < 1
            assert await seconds_of(second) < ATTEMPT_DELAY_SECONDS + 1
            assert set(calls) == {NAME, "x.invalid", "y.invalid"}
            responds.set()
            await asyncio.gather(*hanging)
            with pytest.raises(DatabaseUnavailable, match=r"^x\.invalid: .*Temporary failure in name resolution"):
                await unknown.for_request().fetch_all(ONE, {})
            await named_driver.close()
            await seconds_of(named)
            assert calls[NAME] == 2  # the address may have changed


async def test_statements_wait_when_the_server_has_no_room_for_connections(postgresql_server: str) -> None:
    role = f"limited_{secrets.token_hex(4)}"
    execute(postgresql_server, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 1")
    try:
        url = f"postgresql://{role}@/postgres?host={parse_dsn(postgresql_server)['host']}"
        async with opened(url) as (database, driver):
            await seconds_of(database)
            await asyncio.gather(*(database.for_request().fetch_all(SLEEP, {}) for _ in range(40)))
            assert len(driver.idle) == 1
            async with opened(url) as (other, _):
                for _ in range(2):
                    with pytest.raises(DatabaseUnavailable, match="53300"):  # it has none to wait for
                        await other.for_request().fetch_all(ONE, {})
    finally:
        execute(postgresql_server, f"DROP ROLE {role}")


async def test_statements_that_fail_do_not_let_more_run_at_a_time(empty_postgresql_url: str) -> None:
    async with opened(empty_postgresql_url, 2) as (database, driver):
        for _ in range(3):
            with pytest.raises(QueryError):
                await database.for_request().fetch_all(select(func.unknown()), {})
        await asyncio.gather(*(database.for_request().fetch_all(SLEEP, {}) for _ in range(6)))
        assert len(driver.idle) == 2


async def test_at_most_1000_statements_wait_and_no_longer_than_their_deadline(empty_postgresql_url: str) -> None:
    async with opened(empty_postgresql_url, 1) as (database, _):
        for _ in range(2):
            running = asyncio.create_task(database.for_request(60).fetch_all(HANG, {}))
            await asyncio.sleep(0)
            waiting = (database.for_request(0.1).fetch_all(ONE, {}) for _ in range(1001))
            async with asyncio.timeout(TIMEOUT_SECONDS):
                *gave_up, refused = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(error) for error in gave_up} == {DatabaseUnavailable}
            assert isinstance(refused, DatabaseBusy)
            running.cancel()
            await asyncio.wait([running])


async def test_statements_of_a_request_share_its_deadline(empty_postgresql_url: str) -> None:
    async with opened(empty_postgresql_url) as (database, _):
        request, most_of_it = database.for_request(1), select(func.pg_sleep(0.6))
        await request.fetch_all(most_of_it, {})
        with pytest.raises(DatabaseUnavailable):
            await request.fetch_all(most_of_it, {})


async def test_connections_that_the_server_closed_are_not_used(empty_postgresql_url: str) -> None:
    async with opened(empty_postgresql_url) as (database, driver):
        await asyncio.gather(*(database.for_request().fetch_all(SLEEP, {}) for _ in range(3)))
        terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        execute(empty_postgresql_url, f"{terminate} AND datname = current_database()")
        await asyncio.sleep(0.2)  # the notifications arrive
        assert len(driver.idle) == 3
        await seconds_of(database)


async def test_closing_twice_leaves_a_reused_descriptor_alone(empty_postgresql_url: str) -> None:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    async with opened(empty_postgresql_url) as (database, driver):
        await seconds_of(database)
        connection = driver.idle[0][0].connection
        descriptor = connection.raw.fileno()
        connection.close()
        reader, writer = socket.socketpair()
        with writer:
            number = reader.detach()  # mostly the same already
            os.dup2(number, descriptor)
            loop.add_reader(descriptor, readable.set)
            connection.close()
            writer.send(b"x")
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await readable.wait()
            loop.remove_reader(descriptor)
            for each in {number, descriptor}:
                os.close(each)


async def test_lost_connection_costs_those_that_were_idle_before(empty_postgresql_url: str) -> None:
    async with opened(empty_postgresql_url) as (database, driver):
        await asyncio.gather(*(database.for_request().fetch_all(SLEEP, {}) for _ in range(3)))
        lost = asyncio.create_task(database.for_request(1).fetch_all(HANG, {}))
        await asyncio.sleep(0)
        await database.for_request().fetch_all(SLEEP, {})
        used_since, _ = driver.idle[-1]
        with pytest.raises(DatabaseUnavailable):
            await lost
        assert [cursor for cursor, _ in driver.idle] == [used_since]


async def test_connection_lost_within_a_statement_is_unavailable(empty_postgresql_url: str) -> None:
    async with Gate(empty_postgresql_url) as gate:
        await gate.open()
        async with opened(gate.url) as (database, _):
            await seconds_of(database)
            running = asyncio.create_task(database.for_request().fetch_all(HANG, {}))
            await asyncio.sleep(0.1)
            await gate.shut()
            with pytest.raises(DatabaseUnavailable, match="closed"):
                await running


async def test_unused_connections_are_closed_the_oldest_first(
    empty_postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres_module.IDLE_SECONDS + postgres_module.SWEEP_SECONDS <= 300  # when firewalls drop a connection
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
        assert driver.sweep is None  # the timer of an idle server has ended
