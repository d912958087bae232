"""Promise 2: while the database is away every request is answered in time, and its return needs no restart."""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import psutil
import psycopg2
import pytest
from sqlalchemy import literal, select

from server.database import Database, DatabaseUnavailable
from server.database.postgres import PostgresDriver
from server.handlers.health import READY_SECONDS
from tests.conftest import ORIGIN
from tests.support.client import Person
from tests.support.load import Caller, Load, Outcome, percentile, spread
from tests.support.servers import running
from tests.support.services import Postgres, Proxy, postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.support.servers import Server

CLIENTS = 32
POOL_SIZE = 10
TIMEOUT_SECONDS = 1
MEASURING_SECONDS = 2.5
HEALTH_PERIOD_SECONDS = 0.005
READY_PERIOD_SECONDS = 0.1
IDLE_SECONDS = 1.0
PATIENCE_SECONDS = 10
NAME = "database.invalid"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
UNAVAILABLE = {"error": "Service temporarily unavailable"}
pytestmark = pytest.mark.usefixtures("io_loop")


# Ways to be away


class Fault:
    """A way for the database to be away; this one: the process has ended, and connections are refused."""

    prefix: tuple[str, ...] = ()

    def __init__(self, server: Postgres, proxy: Proxy, folder: Path) -> None:
        self.server = server
        self.proxy = proxy
        self.folder = folder

    @property
    def url(self) -> str:
        """Where the server under test looks for its database."""
        return self.server.url

    async def strike(self) -> None:
        await self.server.stop()

    async def mend(self) -> None:
        await self.server.start()


class Refused(Fault):
    pass


class StoppedMidQuery(Fault):
    """It ends while as many statements as it has connections wait for a lock."""

    async def strike(self) -> None:
        lock = psycopg2.connect(self.server.url)
        with lock.cursor() as cursor:
            cursor.execute("LOCK TABLE tasks")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.server.execute(WAITING) != [(POOL_SIZE,)]:  # noqa: ASYNC110  # PostgreSQL tells nobody
                await asyncio.sleep(0.01)
        await super().strike()
        lock.close()


class Frozen(Fault):
    """It accepts connections, or the kernel does for it, and never responses."""

    async def strike(self) -> None:
        self.server.freeze()

    async def mend(self) -> None:
        self.server.thaw()


class Dropped(Fault):
    """What lies between forgets the connections: no packet passes, and nobody is told."""

    @property
    def url(self) -> str:
        return self.server.url.replace(str(self.server.port), str(self.proxy.port))

    async def strike(self) -> None:
        self.proxy.go_deaf()

    async def mend(self) -> None:
        self.proxy.hear()


class Nameless(Fault):
    """It ends, and its name is no longer known when it is back; the server under test has an /etc/hosts of its own."""

    def __init__(self, server: Postgres, proxy: Proxy, folder: Path) -> None:
        super().__init__(server, proxy, folder)
        self._hosts = folder / "hosts"
        self._hosts.write_text(f"127.0.0.1 {NAME}\n")
        resolver = folder / "resolv.conf"
        resolver.write_text("nameserver 127.0.0.1\n")
        script = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"'
        unshare = ("unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(self._hosts), str(resolver))
        if subprocess.run([*unshare, "getent", "hosts", NAME], capture_output=True, check=False).returncode != 0:
            pytest.fail("this test needs namespaces for users, which this machine does not give")
        self.prefix = unshare

    @property
    def url(self) -> str:
        return self.server.url.replace("127.0.0.1", NAME)

    async def strike(self) -> None:
        self._hosts.write_text("")
        await self.server.stop()
        await self.server.start()

    async def mend(self) -> None:
        self._hosts.write_text(f"127.0.0.1 {NAME}\n")


# What is measured


def any_request() -> Callable[[], tuple[str, str, Any, str]]:
    """Give requests that write and requests that read, by turns."""
    kinds: Iterator[tuple[str, str, Any]] = itertools.cycle(
        [("POST", "/api/tasks", {"title": "Buy groceries"}), ("GET", "/api/tasks?per_page=1", None)]
    )
    return lambda: (*next(kinds), "")


async def probe(caller: Caller, path: str, period: float) -> list[Outcome]:
    """Ask again and again, as long as is measured."""
    outcomes = []
    end = time.perf_counter() + MEASURING_SECONDS
    while time.perf_counter() < end:
        outcomes.append(await caller.call("GET", path))
        await asyncio.sleep(period)
    return outcomes


async def processor_share(pid: int) -> float:
    """Return how much of a core a process uses while nobody asks it for anything."""

    def used() -> float:
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)

    before, started = used(), time.perf_counter()
    assert before > 0
    await asyncio.sleep(IDLE_SECONDS)
    return (used() - before) / (time.perf_counter() - started)


def assert_refused(outcome: Outcome) -> None:
    assert (outcome.status, outcome.json) == (500, UNAVAILABLE)
    assert outcome.headers["content-type"] == "application/json"
    assert outcome.headers["access-control-allow-origin"] == ORIGIN
    assert outcome.headers["x-request-id"]


class Situation:
    """A server under test whose database can go away, and a user who asks it."""

    def __init__(self, stack: AsyncExitStack, fault: Fault, server: Server, person: Person) -> None:
        self._stack = stack
        self.fault = fault
        self.server = server
        self.callers = [self.new_caller(person.token) for _ in range(CLIENTS)]
        self.newcomer = self.new_caller(person.token)
        self.anybody = [self.new_caller(), self.new_caller()]

    def new_caller(self, token: str | None = None) -> Caller:
        caller = Caller(self.server.port, token)
        self._stack.callback(caller.close)
        return caller

    async def create(self) -> Outcome:
        """Let somebody who has not asked before, or not lately, make a task."""
        return await self.newcomer.call("POST", "/api/tasks", {"title": "The first"})

    async def list_at_once(self) -> set[int | None]:
        """Let everybody ask at the same time, and return the statuses."""
        requests = (caller.call("GET", "/api/tasks?per_page=1") for caller in self.callers)
        return {outcome.status for outcome in await asyncio.gather(*requests)}


@asynccontextmanager
async def situation(kind: type[Fault], environment: dict[str, str], folder: Path) -> AsyncIterator[Situation]:
    """Start the parts, and let the server fill its pool."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres())
        fault = kind(database, await stack.enter_async_context(Proxy(database.port).listening()), folder)
        settings = environment | {
            "DATABASE_URL": fault.url,
            "DATABASE_POOL_SIZE": str(POOL_SIZE),
            "DATABASE_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
        }
        server = await stack.enter_async_context(running(folder, settings, prefix=fault.prefix))
        made = Situation(stack, fault, server, await Person.register(server.client, "alice"))
        assert await made.list_at_once() == {200}
        yield made


@pytest.mark.requirement("EC-4", "TM-F14")
@pytest.mark.alone
@pytest.mark.parametrize("kind", [Refused, StoppedMidQuery, Frozen, Dropped, Nameless])
async def test_requests_are_answered_in_time_and_the_first_after_its_return_succeeds(
    kind: type[Fault], environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with situation(kind, environment, tmp_path) as now:
        load = Load()
        load.start(now.callers, any_request(), limit=100_000)
        await load.acknowledged(10 * CLIENTS)

        await now.fault.strike()
        answered_before = len(load.outcomes)
        health, ready = await asyncio.gather(
            probe(now.anybody[0], "/health", HEALTH_PERIOD_SECONDS),
            probe(now.anybody[1], "/health/ready", READY_PERIOD_SECONDS),
        )
        await load.stop()
        failed = [outcome for outcome in load.outcomes if outcome.status not in (200, 201)]
        share = await processor_share(now.server.pid)

        await now.fault.mend()
        first = await now.create()

        slowest = max(outcome.seconds for outcome in load.outcomes)
        health_median, health_p99 = spread(health)
        ready_slowest = max(outcome.seconds for outcome in ready)
        report(
            answered_while_away=len(load.outcomes) - answered_before,
            failed=len(failed),
            failed_median_ms=round(1000 * percentile((outcome.seconds for outcome in failed), 0.5), 1),
            slowest_ms=round(1000 * slowest, 1),
            health_asked=len(health),
            health_median_ms=round(1000 * health_median, 1),
            health_p99_ms=round(1000 * health_p99, 1),
            ready_asked=len(ready),
            ready_slowest_ms=round(1000 * ready_slowest, 1),
            idle_processor_share=round(share, 3),
            first_ms=round(1000 * first.seconds, 1),
        )
        for outcome in failed:
            assert_refused(outcome)
        assert len(failed) >= CLIENTS
        assert slowest <= TIMEOUT_SECONDS + 1
        assert {outcome.status for outcome in health} == {200}
        assert health_p99 < 0.05
        assert {outcome.status for outcome in ready} == {503}
        assert ready_slowest <= READY_SECONDS + 0.5
        assert share < 0.2
        assert first.status == 201
        assert await now.list_at_once() == {200}
        assert now.server.process.exit_code is None


@pytest.mark.parametrize("kind", [Refused, Frozen, Nameless])
async def test_an_absence_that_nobody_noticed_costs_no_request(
    kind: type[Fault], environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with situation(kind, environment, tmp_path) as now:
        await now.fault.strike()
        share = await processor_share(now.server.pid)
        await now.fault.mend()
        first = await now.create()
        report(idle_processor_share=round(share, 3), first_ms=round(1000 * first.seconds, 1))
        assert share < 0.2
        assert first.status == 201
        assert await now.list_at_once() == {200}


async def test_connections_that_vanished_while_nobody_asked_cost_one_request(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with situation(Dropped, environment, tmp_path) as now:
        await now.fault.strike()
        await now.fault.mend()
        first, second = await now.create(), await now.create()
        report(first_ms=round(1000 * first.seconds, 1), second_ms=round(1000 * second.seconds, 1))
        assert_refused(first)
        assert first.seconds <= TIMEOUT_SECONDS + 1
        assert second.status == 201
        assert await now.list_at_once() == {200}


# Names that take their time


async def test_a_name_that_is_not_resolved_in_time_costs_no_more_than_the_timeout(
    monkeypatch: pytest.MonkeyPatch, report: Callable[..., None]
) -> None:
    responds = threading.Event()

    def never(*_arguments: object, **_options: object) -> list[Any]:
        responds.wait(PATIENCE_SECONDS)
        return fails()

    def fails(*_arguments: object, **_options: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    def succeeds(*_arguments: object, **_options: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    loop = asyncio.get_running_loop()
    async with postgres() as server:
        driver = PostgresDriver(server.url.replace("127.0.0.1", NAME))
        database = Database(driver, POOL_SIZE, TIMEOUT_SECONDS)
        for resolver, limit in ((never, TIMEOUT_SECONDS + 0.5), (fails, 0.5)):
            monkeypatch.setattr(socket, "getaddrinfo", resolver)
            started = loop.time()
            with pytest.raises(DatabaseUnavailable):
                await database.for_request().fetch_all(select(literal(1)), {})
            report(**{f"{resolver.__name__}_ms": round(1000 * (loop.time() - started), 1)})
            assert loop.time() - started < limit
            responds.set()
            await asyncio.sleep(0.1)  # a look-up that hangs is the only one of its name
        monkeypatch.setattr(socket, "getaddrinfo", succeeds)
        assert await database.for_request().fetch_all(select(literal(1)), {}) == [(1,)]
        await driver.close()
