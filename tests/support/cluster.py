"""Server processes behind nginx, on PgBouncer, PostgreSQL and Redis, as people deploy them, and a crowd of clients."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from tests.conftest import ORIGIN, SECRET
from tests.support.client import PATHS, Person
from tests.support.limited_servers import redis
from tests.support.load import Caller, Load
from tests.support.processes import PROJECT, client_of, free_port, serving, started
from tests.support.services import PgBouncer, Postgres, postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
    from pathlib import Path

    from tests.support.load import Outcome
    from tests.support.processes import Process

PROCESSES = 4
CLIENTS = 64
SETTINGS = {
    "BETTER_AUTH_SECRET": SECRET,
    "FRONTEND_URL": ORIGIN,
    "BCRYPT_ROUNDS": "4",
    "AUTH_RATE_LIMIT": "off",
    "TRUSTED_PROXY_HOPS": "1",
    "LOG_LEVEL": "warning",  # we read the log through pipes, and not in time under load
}
CONFIGURATION = """
daemon off;
{user}
worker_processes 2;
pid nginx.pid;
events {{ worker_connections 4096; }}
http {{
    log_format json escape=json '{{"status":$status,"upstreams":"$upstream_addr","statuses":"$upstream_status"}}';
    access_log access.jsonl json;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include {project}/deploy/nginx.conf;
}}
"""


@dataclass(frozen=True)
class Nginx:
    """An nginx with the project's configuration, on a port of its own."""

    port: int
    folder: Path

    def requests(self) -> list[dict[str, Any]]:
        """Return what it has passed on: ``status``, and of each try its ``upstreams`` and ``statuses``."""
        lines = (self.folder / "access.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def errors(self) -> list[str]:
        """Return the lines of its error log."""
        return (self.folder / "error.log").read_text("utf-8").splitlines()


@asynccontextmanager
async def nginx(folder: Path, ports: Iterable[int], tls: str = "") -> AsyncIterator[Nginx]:
    """Start nginx in front of processes on these ports; ``tls`` are the directives of a certificate."""
    port = free_port()
    configure(folder, port, ports, tls)
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is missing: sh tests/e2e/install"
    command = (program, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log")
    async with started(*command, folder=folder, environment={}) as process:
        await process.wait_for_port(port)
        yield Nginx(port, folder)


def configure(folder: Path, port: int, ports: Iterable[int], tls: str) -> None:
    """Make a folder with what stands around the project's configuration."""
    folder.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers are somebody who may not enter the folder
    (folder / "nginx.conf").write_text(CONFIGURATION.format(user=user, project=PROJECT), "utf-8")
    processes = "".join(f"server 127.0.0.1:{port} max_fails=0;\n" for port in ports)
    (folder / "todo-api-processes.conf").write_text(processes, "utf-8")
    (folder / "todo-api-listen.conf").write_text(f"listen 127.0.0.1:{port}{' ssl' if tls else ''};\n{tls}", "utf-8")


class Cluster:
    """Server processes, each on a port of its own that its successor takes over."""

    def __init__(self, folder: Path, environment: Mapping[str, str], count: int) -> None:
        self._folder = folder
        self._environment = environment
        self._stack = AsyncExitStack()
        self.processes: dict[int, Process] = {}
        self.ports = [free_port() for _ in range(count)]

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.TaskGroup() as starting:
                for port in self.ports:
                    starting.create_task(self.start(port))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._stack.aclose()

    async def start(self, port: int) -> None:
        """Start a process on a port that none has, and return when it serves."""
        serves = serving(self._folder, self._environment, port)
        self.processes[port], _ = await self._stack.enter_async_context(serves)

    async def replace(self, port: int) -> None:
        """Tell a process to end, and start another in its place once it has."""
        assert await self.processes[port].stop() == 0
        await self.start(port)


@dataclass(frozen=True)
class Everything:
    """All parts of a deployment, running."""

    cluster: Cluster
    nginx: Nginx
    database: Postgres


@asynccontextmanager
async def deployed(folder: Path, count: int = PROCESSES, **settings: str) -> AsyncIterator[Everything]:
    """Start so many processes and all that they need."""
    port = free_port()
    async with (
        postgres() as database,
        PgBouncer(database).running(connections=40) as pooler,
        redis(folder, port),
    ):
        addresses = {"DATABASE_URL": pooler.url, "RATE_LIMIT_STORAGE": f"redis://127.0.0.1:{port}"}
        async with (
            Cluster(folder, SETTINGS | addresses | settings, count) as cluster,
            nginx(folder / "nginx", cluster.ports) as front,
        ):
            yield Everything(cluster, front, database)


def every_kind(item: str) -> Iterator[tuple[str, str, Any, str]]:
    """Return requests that create, list and change, named by when they are sent and by a number."""
    for number in itertools.count():
        kinds = (
            ("POST", "/api/tasks", {"title": f"task {number}"}),
            ("GET", "/api/tasks?per_page=5", None),
            ("PUT", item, {"title": "changed"}),
        )
        yield *kinds[number % len(kinds)], f"{time.monotonic()} task {number}"


@asynccontextmanager
async def under_load(front: Nginx) -> AsyncIterator[Load]:
    """Let clients send requests, each on a connection that it keeps."""
    async with client_of(front.port) as client:
        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
    requests = every_kind(f"/api/tasks/{task['id']}")
    load = Load()
    callers = [Caller(front.port, alice.token) for _ in range(CLIENTS)]
    load.start(callers, lambda: next(requests), limit=1_000_000)
    try:
        yield load
    finally:
        await load.stop()


def failed(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return those of ``every_kind`` that did not succeed."""
    return [outcome for outcome in outcomes if outcome.status not in (200, 201)]
