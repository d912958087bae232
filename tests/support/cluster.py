"""Server processes behind nginx, on PgBouncer and PostgreSQL, and clients that use them."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.client import PATHS, Person
from tests.support.creates import numbered
from tests.support.load import LIST, Caller, Load, Request
from tests.support.processes import PROJECT, SETTINGS, Process, client_of, free_port, run, serving, started
from tests.support.services import Postgres, pgbouncer, postgres

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
    """An nginx with the project's configuration, on a free port."""

    port: int
    folder: Path

    def requests(self) -> list[dict[str, Any]]:
        """Return the ``status`` of each request, and the addresses of the processes that it was sent to."""
        return [json.loads(line) for line in (self.folder / "access.jsonl").read_text("utf-8").splitlines()]


@asynccontextmanager
async def nginx(ports: Iterable[int], tls: str = "") -> AsyncIterator[Nginx]:
    """Start nginx in front of processes on these ports; it uses HTTPS if ``tls`` has directives for a certificate."""
    port = free_port()
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is missing: sh tests/e2e/install"
    user = "user root;" if os.geteuid() == 0 else ""  # its workers must be able to enter the folder
    with TemporaryDirectory(prefix="todo-nginx-") as name:
        folder = Path(name)
        (folder / "nginx.conf").write_text(CONFIGURATION.format(user=user, project=PROJECT))
        (folder / "todo-api-processes.conf").write_text(
            "".join(f"server 127.0.0.1:{each} max_fails=0;\n" for each in ports)
        )
        (folder / "todo-api-listen.conf").write_text(f"listen 127.0.0.1:{port}{' ssl' if tls else ''};\n{tls}")
        async with started(program, "-p", name, "-c", "nginx.conf", "-e", "error.log", folder=folder) as process:
            await process.wait_for_port(port)
            yield Nginx(port, folder)


async def self_signed(folder: Path) -> str:
    """Make ``key.pem`` and ``certificate.pem`` in a folder, and return nginx's directives for them."""
    files = "-keyout key.pem -out certificate.pem"
    options = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 1 -subj /CN=todo.example"
    await run("openssl", "req", "-x509", *options.split(), *files.split(), folder=folder)
    return f"ssl_certificate {folder}/certificate.pem;\nssl_certificate_key {folder}/key.pem;\n"


@dataclass
class Cluster:
    """Server processes that can be replaced on their ports, nginx in front of them, and their database."""

    folder: Path
    environment: dict[str, str]
    database: Postgres
    stack: AsyncExitStack
    processes: dict[int, Process] = field(default_factory=dict)
    nginx: Nginx = field(init=False)

    async def start(self, port: int) -> None:
        """Start a process, and wait until it listens."""
        serves = serving(self.folder, self.environment, port)
        self.processes[port], _ = await self.stack.enter_async_context(serves)

    async def replace(self, port: int) -> None:
        """Stop a process, and start another one on its port."""
        assert await self.processes[port].stop() == 0
        await self.start(port)


@asynccontextmanager
async def deployed(folder: Path) -> AsyncIterator[Cluster]:
    """Start server processes with PostgreSQL, PgBouncer and nginx."""
    async with postgres() as database, pgbouncer(database, connections=40) as url, AsyncExitStack() as stack:
        # Under load, this process could not keep up with reading one log line per request.
        settings = SETTINGS | {"DATABASE_URL": url, "TRUSTED_PROXY_HOPS": "1", "LOG_LEVEL": "warning"}
        cluster = Cluster(folder, settings, database, stack)
        await asyncio.gather(*(cluster.start(free_port()) for _ in range(PROCESSES)))
        cluster.nginx = await stack.enter_async_context(nginx(cluster.processes))
        yield cluster


def mixed(item: str) -> Iterator[Request]:
    """Yield requests that create, list and update tasks."""
    for create in numbered():
        yield from (create, LIST, ("PUT", item, {"title": "changed"}))


@asynccontextmanager
async def under_load(front: Nginx) -> AsyncIterator[Load]:
    """Let clients send requests until the block ends, each on a persistent connection."""
    async with client_of(front.port) as client:
        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
    load = Load()
    load.start([Caller(front.port, alice.token) for _ in range(CLIENTS)], mixed(f"/api/tasks/{task['id']}"))
    try:
        yield load
    finally:
        await load.stop()
