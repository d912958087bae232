"""Two processes count rate limits together on a Redis, and each on its own while Redis fails."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import limits
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from server.errors import TooManyRequests
from server.security.ratelimit import RateLimiter
from server.security.redis_storage import CALL_SECONDS, MAX_CONNECTIONS
from tests.support.client import PASSWORD, PATHS, Client, Response
from tests.support.cluster import self_signed
from tests.support.measuring import Report
from tests.support.processes import SETTINGS, Process, free_port, serving
from tests.support.services import redis

LIMIT = 5
REDIS_PASSWORD = "s3cr3t-of-redis"
SLACK_SECONDS = 0.1  # of a busy machine
pytestmark = pytest.mark.usefixtures("io_loop")


async def attempt(client: Client, address: str, email: str | None = None, path: str = PATHS[0].login) -> Response:
    """Log in from an address to an account that does not exist."""
    value = {"email": email or Client.new_email("unknown"), "password": PASSWORD}
    return await client.request("POST", path, value, headers={"X-Forwarded-For": address})


class Servers:
    """Two server processes."""

    def __init__(self, both: list[tuple[Process, Client]]) -> None:
        self.processes = [process for process, _ in both]
        self.clients = [client for _, client in both]

    async def admitted(self, address: str) -> int:
        """Return how many of many attempts from an address are not refused."""
        responses = await asyncio.gather(*(attempt(self.clients[i % 2], address) for i in range(8 * LIMIT)))
        statuses = Counter(response.status for response in responses)
        assert set(statuses) <= {401, 429}
        return statuses[401]

    def logged(self, name: str) -> list[list[str]]:
        """Return the reasons with which each process says that Redis is ``unavailable`` or ``recovered``."""
        events = [process.events(f"rate_limit_storage_{name}") for process in self.processes]
        return [[event.get("reason", "") for event in found] for found in events]

    async def recovered(self, times: int = 1) -> None:
        """Make attempts until each process has found this often that Redis is available again."""
        async with asyncio.timeout(10):
            while [len(found) for found in self.logged("recovered")] != [times, times]:
                for client in self.clients:
                    await attempt(client, "203.0.113.1")
                await asyncio.sleep(0.05)


@asynccontextmanager
async def servers(folder: Path, url: str) -> AsyncIterator[Servers]:
    """Start two processes with one Redis, and check that they end well."""
    environment = SETTINGS | {
        "AUTH_RATE_LIMIT": f"{LIMIT}/minute",
        "RATE_LIMIT_STORAGE": url,
        "TRUSTED_PROXY_HOPS": "1",
        "PYTHONWARNINGS": "always::ResourceWarning",
    }
    async with AsyncExitStack() as stack:
        found = Servers([await stack.enter_async_context(serving(folder, environment)) for _ in range(2)])
        yield found
        for process in found.processes:
            assert await process.stop() == 0
            assert process.stderr == ""
            assert REDIS_PASSWORD not in process.stdout
            assert not [event for event in process.events() if event["level"] == "error"]


async def test_two_processes_count_together(tmp_path: Path) -> None:
    port = free_port()
    async with (
        redis(tmp_path, port),
        servers(tmp_path, f"redis://127.0.0.1:{port}/3") as both,
        Redis(port=port, db=3) as client,
    ):
        assert await both.admitted("192.0.2.1") == LIMIT
        refused = await attempt(both.clients[1], "192.0.2.1")
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        keys = await client.keys()
        assert len(keys) == 1 + LIMIT  # the address, and the emails of failed logins
        for key in keys:
            assert key.startswith(b"todo-api:")
            assert 0 < await client.ttl(key) <= 60
        email = Client.new_email("unknown")
        statuses = [
            (await attempt(both.clients[i % 2], f"198.51.100.{i}", email, PATHS[i % 2].login)).status
            for i in range(LIMIT + 2)
        ]
        assert statuses == [401] * LIMIT + [429] * 2


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_processes_count_alone_while_redis_is_down(tmp_path: Path, number: int, report: Report) -> None:
    port = free_port()
    outcomes: list[tuple[float, int]] = []
    stopping = asyncio.Event()

    async def load(client: Client, network: int) -> None:
        for i in range(10_000):
            if stopping.is_set():
                return
            started = time.perf_counter()
            response = await attempt(client, f"198.51.{network}.{i % 250}")
            outcomes.append((time.perf_counter() - started, response.status))

    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(redis(tmp_path, port))
        both = await stack.enter_async_context(servers(tmp_path, f"redis://127.0.0.1:{port}"))
        workers = [asyncio.create_task(load(both.clients[i % 2], i)) for i in range(6)]
        await asyncio.sleep(1)
        usual = max(outcomes)[0]
        outcomes.clear()
        first.send_signal(number)
        await asyncio.sleep(2.5)
        stopping.set()
        await asyncio.gather(*workers)
        report(slowest=usual, slowest_without_redis=max(outcomes)[0])
        assert len(outcomes) > 100
        assert {status for _, status in outcomes} <= {401, 429}
        assert max(outcomes)[0] < usual + CALL_SECONDS + SLACK_SECONDS
        assert await both.admitted("192.0.2.1") == 2 * LIMIT
        assert both.logged("recovered") == [[], []]
        if number == signal.SIGSTOP:
            first.send_signal(signal.SIGCONT)
        else:
            await stack.enter_async_context(redis(tmp_path, port))
        await both.recovered()
        assert await both.admitted("192.0.2.2") == LIMIT
        assert [len(found) for found in both.logged("unavailable")] == [1, 1]


async def test_full_redis_or_wrong_values_cost_no_request(tmp_path: Path) -> None:
    port = free_port()
    async with (
        redis(tmp_path, port),
        Redis(port=port) as client,
        servers(tmp_path, f"redis://127.0.0.1:{port}") as both,
    ):
        assert await both.admitted("192.0.2.1") == LIMIT
        for key in await client.keys():
            await client.delete(key)
            await client.execute_command("LPUSH", key, *["not a time"] * LIMIT)  # type: ignore[no-untyped-call]
        assert await both.admitted("192.0.2.1") == 2 * LIMIT
        await both.recovered()
        assert await both.admitted("192.0.2.2") == LIMIT

        await client.config_set("maxmemory", "1")
        assert await both.admitted("192.0.2.3") == 2 * LIMIT
        await asyncio.sleep(1.5)  # Redis is tried again
        assert await both.admitted("192.0.2.4") == 2 * LIMIT
        assert [len(found) for found in both.logged("recovered")] == [1, 1]
        for found in both.logged("unavailable"):
            assert len(found) == 2
            assert "used memory" in found[1]
        await client.config_set("maxmemory", "0")
        await both.recovered(2)
        assert await both.admitted("192.0.2.5") == LIMIT


async def test_stalled_event_loop_is_not_a_failure_of_redis(tmp_path: Path) -> None:
    port = free_port()
    limiter = RateLimiter(limits.parse("3/minute"), f"redis://127.0.0.1:{port}")
    outcomes: list[object] = []
    async with redis(tmp_path, port):
        with capture_logs() as events:
            for _ in range(4):
                task = asyncio.create_task(limiter.count_attempt("login", "192.0.2.1"))
                await asyncio.sleep(0)  # the call begins
                sum(range(20_000_000))  # holds the GIL
                outcomes += await asyncio.gather(task, return_exceptions=True)
        limiter.close()
    assert outcomes[:3] == [None] * 3
    assert isinstance(outcomes[3], TooManyRequests)
    assert {event["event"] for event in events} == {"rate_limited"}


async def test_connections_to_redis_are_limited_and_closed(tmp_path: Path) -> None:
    port = free_port()
    limiter = RateLimiter(limits.parse("3/minute"), f"redis://127.0.0.1:{port}")
    async with redis(tmp_path, port), Redis(port=port) as client:
        await asyncio.gather(*(limiter.count_attempt("login", f"192.0.2.{i}") for i in range(100)))
        assert 1 < len(await client.client_list()) <= 1 + MAX_CONNECTIONS
        limiter.close()
        await asyncio.sleep(0.5)  # until Redis has noticed it
        assert len(await client.client_list()) == 1


async def test_redis_with_tls_and_a_self_signed_certificate(tmp_path: Path) -> None:
    await self_signed(tmp_path)
    port = free_port()
    tls = f"--tls-port {port} --tls-cert-file certificate.pem --tls-key-file key.pem --tls-auth-clients no"
    url = f"rediss://:{REDIS_PASSWORD}@127.0.0.1:{port}"
    async with redis(tmp_path, 0, *tls.split(), "--requirepass", REDIS_PASSWORD):
        async with servers(tmp_path, f"{url}?ssl_cert_reqs=none") as both:
            await both.admitted("192.0.2.9")  # connecting reads the system's certificates, maybe too slowly
            await asyncio.sleep(1.5)
            await both.admitted("192.0.2.9")
            assert await both.admitted("192.0.2.1") == LIMIT
        async with servers(tmp_path, url) as both:
            for client in both.clients:
                await attempt(client, "192.0.2.9")
            assert await both.admitted("192.0.2.1") == 2 * LIMIT
            assert all("CERTIFICATE_VERIFY_FAILED" in found[0] for found in both.logged("unavailable"))
