"""A server process for load tests: it logs to a file, and tests can inspect its memory and its connections."""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.client import Client
from tests.support.load import Caller
from tests.support.processes import PROJECT, RUN, SETTINGS, Process, serving
from tests.support.services import Postgres, postgres

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Server:
    """A server process and the folder of its log."""

    process: Process
    client: Client
    folder: Path
    callers: list[Caller] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.client.port

    def caller(self, token: str | None = None) -> Caller:
        """Return a new client, which ``running`` closes at its end."""
        self.callers.append(caller := Caller(self.port, token))
        return caller

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return all log lines, or only those of one event; fail if any line is not JSON."""
        time.sleep(0.1)  # the server collects lines for a moment before it writes them
        lines = (self.folder / "server.jsonl").read_bytes().split(b"\n")
        events = [json.loads(line) for line in lines[:-1]]
        return [event for event in events if name in (None, event["event"])]

    def memory(self) -> float:
        """Return the resident memory of the process, in MiB."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / MEBIBYTE

    def peak_memory(self) -> float:
        """Return the peak resident memory of the process, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def processor_seconds(self) -> float:
        return float(sum(psutil.Process(self.process.pid).cpu_times()[:2]))

    def descriptors(self, port: int) -> set[int]:
        """Return the descriptors of the open connections from or to a port."""
        found = psutil.Process(self.process.pid).net_connections("tcp4")
        open_ones = [one for one in found if one.status == "ESTABLISHED"]
        return {one.fd for one in open_ones if port in (one.laddr.port, one.raddr.port)}


@asynccontextmanager
async def running(folder: Path, *command: str, **settings: str) -> AsyncIterator[Server]:
    """Start a server with settings on a free port, with ``command`` if it is given, and wait until it listens."""
    environment = SETTINGS | {"PYTHONPATH": str(PROJECT)} | settings
    # The log goes to the file. Descriptor 3 keeps the pipe open, so that its end shows that the process has ended.
    shell = ("/bin/sh", "-c", 'exec "$@" 3>&1 >server.jsonl', "sh")
    async with serving(folder, environment, command=(*shell, *(command or RUN))) as (process, client):
        server = Server(process, client, folder)
        try:
            yield server
        finally:
            for caller in server.callers:
                caller.close()
            await asyncio.sleep(0)  # lets asyncio close them


@asynccontextmanager
async def running_on_postgres(folder: Path, *command: str, **settings: str) -> AsyncIterator[tuple[Server, Postgres]]:
    """Start a server, and a PostgreSQL that only this server uses."""
    async with postgres() as database, running(folder, *command, DATABASE_URL=database.url, **settings) as server:
        yield server, database


def own_hosts(hosts: Path, *options: str) -> tuple[str, ...]:
    """Return a prefix that runs a command with ``hosts`` as /etc/hosts and no name server; options are unshare's."""
    resolver = hosts.with_name("resolv.conf")
    resolver.write_text("nameserver 127.0.0.1\n")
    unshare = ("unshare", "--map-root-user", "--mount", *options)
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.fail("this test needs user namespaces, which this machine does not allow")
    script = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"'
    return (*unshare, "sh", "-c", script, "sh", str(hosts), str(resolver))
