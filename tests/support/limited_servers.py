"""Two server processes on one database, attempts to log in there, and a Redis that counts them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.conftest import ORIGIN, SECRET
from tests.support.client import PASSWORD, PATHS, Client
from tests.support.processes import serving, started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.client import Response
    from tests.support.processes import Process

LIMIT = 5
PATIENCE_SECONDS = 10
REDIS_PASSWORD = "s3cr3t-of-redis"


@dataclass
class Servers:
    """Two server processes, and attempts on them."""

    both: list[tuple[Process, Client]]

    async def attempt(self, server: int, address: str) -> Response:
        """Log in as nobody, from an address."""
        value = {"email": Client.new_email("nobody"), "password": PASSWORD}
        _, client = self.both[server % 2]
        return await client.request("POST", PATHS[0].login, value, headers={"X-Forwarded-For": address})

    async def let_in(self, address: str) -> Counter[int]:
        """Return the statuses of many attempts at once on both."""
        responses = await asyncio.gather(*(self.attempt(i, address) for i in range(8 * LIMIT)))
        return Counter(response.status for response in responses)

    def events(self, name: str) -> list[list[dict[str, Any]]]:
        """Return what each process says of its Redis being ``unavailable`` or ``recovered``."""
        return [process.events(f"rate_limit_storage_{name}") for process, _ in self.both]

    async def recovered(self) -> None:
        """Make attempts until each process has found its Redis available again for the first time."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while [len(events) for events in self.events("recovered")] != [1, 1]:
                for server in range(2):
                    await self.attempt(server, "203.0.113.1")
                await asyncio.sleep(0.05)


def all_of(times: int) -> Counter[int]:
    """Return what ``let_in`` does if so many processes count apart."""
    return Counter({401: times * LIMIT, 429: (8 - times) * LIMIT})


@asynccontextmanager
async def redis(folder: Path, port: int, *options: str) -> AsyncIterator[Process]:
    """Start a Redis that keeps nothing on disk."""
    command = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", *options)
    async with started(*command, folder=folder, environment={}) as process:
        await process.wait_for_text("Ready to accept connections")
        yield process


@asynccontextmanager
async def servers(folder: Path, url: str) -> AsyncIterator[Servers]:
    """Start two processes on one database and one Redis, and check that they end well."""
    environment = {
        "DATABASE_URL": f"sqlite:///{folder}/todo.db",
        "BETTER_AUTH_SECRET": SECRET,
        "FRONTEND_URL": ORIGIN,
        "BCRYPT_ROUNDS": "4",
        "AUTH_RATE_LIMIT": f"{LIMIT}/minute",
        "RATE_LIMIT_STORAGE": url,
        "TRUSTED_PROXY_HOPS": "1",
        "PYTHONWARNINGS": "always::ResourceWarning",
    }
    async with AsyncExitStack() as stack:
        found = Servers([await stack.enter_async_context(serving(folder, environment)) for _ in range(2)])
        yield found
        for process, _ in found.both:
            assert await process.stop() == 0
            assert process.stderr == ""
            assert REDIS_PASSWORD not in process.stdout
            assert not [event for event in process.events() if event["level"] == "error"]
