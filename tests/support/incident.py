"""A bad day of two servers on one PostgreSQL, and the logs that it leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jwt

from tests.conftest import ORIGIN, SECRET
from tests.support.client import PATHS, Client, Person
from tests.support.processes import Gate, serving, writes_locked

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.client import Response
    from tests.support.processes import Process

    Lines = list[dict[str, Any]]

PATH = PATHS[0]
LIMIT = 3
SLOW_SECONDS = 1.0
ATTACKER = "203.0.113.7"
TITLE = {"title": "Buy groceries"}
ENVIRONMENT = {
    "BETTER_AUTH_SECRET": SECRET,
    "FRONTEND_URL": ORIGIN,
    "BCRYPT_ROUNDS": "4",
    "AUTH_RATE_LIMIT": f"{LIMIT}/minute",
    "TRUSTED_PROXY_HOPS": "1",
}


@dataclass
class Day:
    """Two servers on one database, what was sent to them, and what they answered."""

    both: list[tuple[Process, Client]]
    done: list[tuple[str, int]] = field(default_factory=list)

    async def send(self, method: str, path: str, value: Any = ..., *, server: int = 0, **options: Any) -> Response:
        """Send a request, and note its route and status."""
        response = await self.both[server][1].request(method, path, value, **options)
        self.done.append((f"{method} {'null' if path == '/no/such/path' else path}", response.status))
        return response

    async def log_in(self, statuses: str, email: str | None, address: str = ATTACKER) -> None:
        """Try wrong passwords, of an account or of new ones, that are answered so."""
        for status in statuses.split():
            value = {"email": email or Client.new_email("nobody"), "password": "Wrong-password-1"}
            response = await self.send("POST", PATH.login, value, headers={"X-Forwarded-For": address})
            assert response.status == int(status)


def token(key: str = SECRET, **claims: Any) -> str:
    return jwt.encode({"sub": "00000000-0000-4000-8000-000000000000", "exp": time.time() + 60, **claims}, key, "HS256")


async def reject_tokens(day: Day) -> None:
    """Send tokens of five kinds that are not accepted, the expired ones from two addresses."""
    await day.send("GET", PATH.tasks)
    for address in (ATTACKER, ATTACKER, "198.51.100.1"):
        await day.send("GET", PATH.tasks, token=token(exp=1), headers={"X-Forwarded-For": address})
    for _ in range(2):
        await day.send("GET", PATH.tasks, token=token("another-secret-of-more-than-32-bytes"), server=1)
    await day.send("GET", PATH.tasks, token="no.token")
    await day.send("POST", PATH.tasks, TITLE, token=token())


async def refuse_logins(day: Day, email: str) -> None:
    """Reach the limit of an address, that of an email, and that of registering."""
    await day.log_in("401 401 401 429 429", None)
    await day.log_in("401", email, "198.51.100.1")
    await day.log_in("401 401 429", email, "198.51.100.2")
    for _ in range(LIMIT + 1):
        await day.send("POST", PATH.register, {}, headers={"X-Forwarded-For": "198.51.100.3"})


async def live(day: Day, database_url: str, gate: Gate, request_id: str) -> None:
    """Have a bad day: lies, guesses, a table that is locked for a while, a database that goes away."""
    alice = await Person.register(day.both[0][1], "alice")
    day.done.append((f"POST {PATH.register}", 201))
    for server in (0, 1, 0):
        await day.send("GET", PATH.tasks, token=alice.token, server=server)
    await day.send("GET", "/no/such/path")
    await reject_tokens(day)
    await refuse_logins(day, alice.email)
    with writes_locked(database_url):
        slow = asyncio.create_task(day.send("POST", PATH.tasks, TITLE, token=alice.token))
        await asyncio.sleep(SLOW_SECONDS)
    assert (await slow).status == 201
    await gate.shut()
    named = {"X-Request-ID": request_id}
    assert (await day.send("GET", PATH.tasks, token=alice.token, headers=named)).status == 500
    assert (await day.send("GET", "/health/ready", server=1)).status == 503
    await gate.open()
    assert (await day.send("GET", PATH.tasks, token=alice.token, headers=named, server=1)).status == 200


@dataclass
class Logs:
    """What a bad day left behind: log files in a folder, and the id of a request that both servers met."""

    day: Day
    folder: Path
    request_id: str

    def ask(self, question: str, lines: str | None = None) -> Lines:
        """Run a command of the page, on the files or on lines through a pipe, and return what it writes."""
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

    def requests(self) -> Lines:
        return [line for process, _ in self.day.both for line in process.events("request")]


async def live_and_log(folder: Path, database_url: str) -> Logs:
    """Run two servers through a bad day, and write what they logged to files, with what else may get there."""
    request_id = secrets.token_hex(8)
    async with AsyncExitStack() as stack:
        gate = await stack.enter_async_context(Gate(database_url, "any"))
        await gate.open()
        environment = {**ENVIRONMENT, "DATABASE_URL": gate.url}
        day = Day([await stack.enter_async_context(serving(folder, environment)) for _ in range(2)])
        await live(day, database_url, gate, request_id)
        for number, (process, _) in enumerate(day.both, 1):
            assert await process.stop() == 0
            (folder / f"web.{number}.log").write_text(process.stdout, "utf-8")
    (folder / "web.3.log").write_text('Traceback (most recent call last):\n7\nnull\n["x"]\n{"event":"requ', "utf-8")
    return Logs(day, folder, request_id)
