"""Server processes behind nginx, on PgBouncer, PostgreSQL and Redis, and clients that use them."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.client import PATHS, Person
from tests.support.creates import numbered
from tests.support.load import LIST, Caller, Load, Request
from tests.support.processes import PROJECT, Process, client_of, free_port, serving, started
from tests.support.servers import SETTINGS
from tests.support.services import Postgres, pgbouncer, postgres, redis

PROCESSES = 4
CLIENTS = 64
CONFIGURATION = """
daemon off;
{user}
worker_processes 2;
pid nginx.pid;
events {{ worker_connections 4096; }}
http {{
    log_format json escape=json '{{"status":$status,"upstreams":"$upstream_addr"}}';
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
        """Return the ``status`` of each request, and the addresses of the processes that it was sent to."""
        return [json.loads(line) for line in (self.folder / "access.jsonl").read_text("utf-8").splitlines()]

    def errors(self) -> str:
        return (self.folder / "error.log").read_text("utf-8")


@asynccontextmanager
async def nginx(folder: Path, ports: Iterable[int], tls: str = "") -> AsyncIterator[Nginx]:
    """Start nginx in front of processes on these ports; ``tls`` are the directives of a certificate."""
    port = free_port()
    listen = f"listen 127.0.0.1:{port}{' ssl' if tls else ''};\n{tls}"
    user = "user root;" if os.geteuid() == 0 else ""  # its workers must be able to enter the folder
    write_files(
        folder,
        **{
            "nginx.conf": CONFIGURATION.format(user=user, project=PROJECT),
            "todo-api-processes.conf": "".join(f"server 127.0.0.1:{port} max_fails=0;\n" for port in ports),
            "todo-api-listen.conf": listen,
        },
    )
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is missing: sh tests/e2e/install"
    command = (program, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log")
    async with started(*command, folder=folder, environment={}) as process:
        await process.wait_for_port(port)
        yield Nginx(port, folder)


def write_files(folder: Path, **texts: str) -> None:
    """Make a folder with files."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")


class Cluster:
    """Server processes on ports that their successors take over, nginx in front of them, and their database."""

    def __init__(self, folder: Path, environment: dict[str, str], database: Postgres, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._environment = environment
        self._stack = stack
        self.database = database
        self.processes: dict[int, Process] = {}
        self.nginx: Nginx

    async def start(self, port: int) -> None:
        """Start a process, and return when it serves."""
        serves = serving(self._folder, self._environment, port)
        self.processes[port], _ = await self._stack.enter_async_context(serves)

    async def replace(self, port: int) -> None:
        """Stop a process, and start another one on its port."""
        assert await self.processes[port].stop() == 0
        await self.start(port)


@asynccontextmanager
async def deployed(folder: Path, count: int = PROCESSES, **settings: str) -> AsyncIterator[Cluster]:
    """Start a number of processes and all that they need."""
    port = free_port()
    async with (
        postgres() as database,
        pgbouncer(database, connections=40) as url,
        redis(folder, port),
        AsyncExitStack() as stack,
    ):
        # Under load this process cannot read the log of every request in time.
        own = {"TRUSTED_PROXY_HOPS": "1", "LOG_LEVEL": "warning", "RATE_LIMIT_STORAGE": f"redis://127.0.0.1:{port}"}
        cluster = Cluster(folder, SETTINGS | own | {"DATABASE_URL": url} | settings, database, stack)
        await asyncio.gather(*(cluster.start(free_port()) for _ in range(count)))
        cluster.nginx = await stack.enter_async_context(nginx(folder / "nginx", cluster.processes))
        yield cluster


def mixed(item: str) -> Iterator[Request]:
    """Yield requests that create, list and change tasks."""
    for create in numbered():
        yield from (create, LIST, ("PUT", item, {"title": "changed"}))


@asynccontextmanager
async def under_load(front: Nginx) -> AsyncIterator[Load]:
    """Let clients send requests, each on a connection that it keeps."""
    async with client_of(front.port) as client:
        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
    load = Load()
    load.start([Caller(front.port, alice.token) for _ in range(CLIENTS)], mixed(f"/api/tasks/{task['id']}"))
    try:
        yield load
    finally:
        await load.stop()
