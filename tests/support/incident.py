"""Two servers on one PostgreSQL while several things go wrong, and the log files that remain."""

import asyncio
import json
import os
import secrets
import subprocess
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt

from tests.conftest import SECRET
from tests.support.client import PATHS, Client, Person, Response
from tests.support.processes import Gate, Process, serving, writes_locked
from tests.support.servers import SETTINGS

PATH = PATHS[0]
LIMIT = 3
SLOW_SECONDS = 1.0
ATTACKER = "203.0.113.7"
TITLE = {"title": "Buy groceries"}
ENVIRONMENT = SETTINGS | {"AUTH_RATE_LIMIT": f"{LIMIT}/minute", "TRUSTED_PROXY_HOPS": "1"}


@dataclass
class Incident:
    """Two servers and the requests that were sent to them; afterwards their log files in a folder."""

    folder: Path
    request_id: str = field(default_factory=lambda: secrets.token_hex(8))  # of requests to both servers
    servers: list[tuple[Process, Client]] = field(default_factory=list)
    done: list[tuple[str, int]] = field(default_factory=list)  # route and status

    async def send(self, method: str, path: str, value: Any = ..., *, server: int = 0, **options: Any) -> Response:
        """Send a request, and note its route and status."""
        response = await self.servers[server][1].request(method, path, value, **options)
        self.done.append((f"{method} {'null' if path == '/no/such/path' else path}", response.status))
        return response

    async def log_in(self, statuses: str, email: str | None, address: str) -> None:
        """Send wrong passwords for an account, or for new emails, and check the statuses of the responses."""
        for status in statuses.split():
            value = {"email": email or Client.new_email("unknown"), "password": "Wrong-password-1"}
            response = await self.send("POST", PATH.login, value, headers={"X-Forwarded-For": address})
            assert response.status == int(status)

    def ask(self, question: str, lines: str | None = None) -> list[dict[str, Any]]:
        """Run a command of the page on the log files, or on lines through a pipe, and return its output."""
        found = subprocess.run(
            ["sh", "-c", question],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "ID": self.request_id},
            input=lines,
            capture_output=True,
            encoding="utf-8",
            timeout=30,
            check=True,
        )
        assert found.stderr == ""
        return [json.loads(line) for line in found.stdout.splitlines()]

    def requests(self) -> list[dict[str, Any]]:
        """Return the ``request`` lines of both logs."""
        return [line for process, _ in self.servers for line in process.events("request")]


def token(key: str = SECRET, **claims: Any) -> str:
    return jwt.encode({"sub": "00000000-0000-4000-8000-000000000000", "exp": time.time() + 60, **claims}, key, "HS256")


async def reject_tokens(incident: Incident) -> None:
    """Send tokens of five kinds that are not accepted, the expired ones from two addresses."""
    await incident.send("GET", PATH.tasks)
    for address in (ATTACKER, ATTACKER, "198.51.100.1"):
        await incident.send("GET", PATH.tasks, token=token(exp=1), headers={"X-Forwarded-For": address})
    for _ in range(2):
        await incident.send("GET", PATH.tasks, token=token("another-secret-of-more-than-32-bytes"), server=1)
    await incident.send("GET", PATH.tasks, token="no.token")
    await incident.send("POST", PATH.tasks, TITLE, token=token())


async def refuse_logins(incident: Incident, email: str) -> None:
    """Reach the limit of an address, that of an email, and that of registering."""
    await incident.log_in("401 401 401 429 429", None, ATTACKER)
    await incident.log_in("401", email, "198.51.100.1")
    await incident.log_in("401 401 429", email, "198.51.100.2")
    for _ in range(LIMIT + 1):
        await incident.send("POST", PATH.register, {}, headers={"X-Forwarded-For": "198.51.100.3"})


async def run_incident(incident: Incident, database_url: str, gate: Gate) -> None:
    """Let tokens and logins be refused, a statement wait for a lock, and the database be unreachable."""
    alice = await Person.register(incident.servers[0][1], "alice")
    incident.done.append((f"POST {PATH.register}", 201))
    for server in (0, 1, 0):
        await incident.send("GET", PATH.tasks, token=alice.token, server=server)
    await incident.send("GET", "/no/such/path")
    await reject_tokens(incident)
    await refuse_logins(incident, alice.email)
    with writes_locked(database_url):
        slow = asyncio.create_task(incident.send("POST", PATH.tasks, TITLE, token=alice.token))
        await asyncio.sleep(SLOW_SECONDS)
    assert (await slow).status == 201
    await gate.shut()
    headers = {"X-Request-ID": incident.request_id}
    assert (await incident.send("GET", PATH.tasks, token=alice.token, headers=headers)).status == 500
    assert (await incident.send("GET", "/health/ready", server=1)).status == 503
    await gate.open()
    assert (await incident.send("GET", PATH.tasks, token=alice.token, headers=headers, server=1)).status == 200


async def record_incident(folder: Path, database_url: str) -> Incident:
    """Run an incident, and write the logs of both servers to files, next to one with lines that are not theirs."""
    incident = Incident(folder)
    async with AsyncExitStack() as stack:
        gate = await stack.enter_async_context(Gate(database_url, "any"))
        await gate.open()
        environment = {**ENVIRONMENT, "DATABASE_URL": gate.url}
        incident.servers += [await stack.enter_async_context(serving(folder, environment)) for _ in range(2)]
        await run_incident(incident, database_url, gate)
        for number, (process, _) in enumerate(incident.servers, 1):
            assert await process.stop() == 0
            (folder / f"web.{number}.log").write_text(process.stdout, "utf-8")
    (folder / "web.3.log").write_text('Traceback (most recent call last):\n7\nnull\n["x"]\n{"event":"requ', "utf-8")
    return incident
