"""Rate limits that two processes count together on a real Redis, which is killed, frozen, filled and locked."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from types import NoneType
from typing import TYPE_CHECKING

import limits
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from server.errors import TooManyRequests
from server.security.ratelimit import RateLimiter
from server.security.redis_storage import CALL_SECONDS, MAX_CONNECTIONS
from tests.support.client import PASSWORD, PATHS, Client
from tests.support.limited_servers import LIMIT, REDIS_PASSWORD, Servers, all_of, redis, servers
from tests.support.processes import finished, free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("io_loop")
SLACK_SECONDS = 0.1  # a busy machine's


async def test_two_processes_count_together_under_keys_that_have_a_prefix_and_expire(tmp_path: Path) -> None:
    port = free_port()
    async with (
        redis(tmp_path, port),
        servers(tmp_path, f"redis://127.0.0.1:{port}/3") as both,
        Redis(port=port, db=3) as client,
    ):
        assert await both.let_in("192.0.2.1") == all_of(1)
        refused = await both.attempt(1, "192.0.2.1")
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        keys = await client.keys()
        assert len(keys) == 1 + LIMIT  # the address, and the emails that failed
        for key in keys:
            assert key.startswith(b"todo-api:")
            assert 0 < await client.ttl(key) <= 60
        value = {"email": Client.new_email("somebody"), "password": PASSWORD}
        statuses = []
        for i in range(LIMIT + 2):
            headers = {"X-Forwarded-For": f"198.51.100.{i}"}
            response = await both.both[i % 2][1].request("POST", PATHS[i % 2].login, value, headers=headers)
            statuses.append(response.status)
        assert statuses == [401] * LIMIT + [429] * 2


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_while_redis_is_unavailable_limits_go_on_in_memory(
    tmp_path: Path, number: signal.Signals, report: Callable[..., None]
) -> None:
    port = free_port()
    outcomes: list[tuple[float, int]] = []
    stopping = asyncio.Event()

    async def load(both: Servers, worker: int) -> None:
        for i in range(10_000):
            if stopping.is_set():
                return
            began = time.perf_counter()
            response = await both.attempt(worker, f"198.51.{worker}.{i % 250}")
            outcomes.append((time.perf_counter() - began, response.status))

    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(redis(tmp_path, port))
        both = await stack.enter_async_context(servers(tmp_path, f"redis://127.0.0.1:{port}"))
        workers = [asyncio.create_task(load(both, worker)) for worker in range(6)]
        await asyncio.sleep(1)
        usual = max(outcomes)[0]
        outcomes.clear()
        first.send_signal(number)
        await asyncio.sleep(2.5)
        stopping.set()
        await asyncio.gather(*workers)
        assert len(outcomes) > 100
        assert {status for _, status in outcomes} <= {401, 429}
        assert max(outcomes)[0] < usual + CALL_SECONDS + SLACK_SECONDS
        report(
            longest_seconds=round(usual, 3),
            longest_seconds_unavailable=round(max(outcomes)[0], 3),
            attempts=len(outcomes),
        )
        assert await both.let_in("192.0.2.1") == all_of(2)
        assert [len(events) for events in both.events("unavailable")] == [1, 1]
        assert both.events("recovered") == [[], []]
        if number == signal.SIGSTOP:
            first.send_signal(signal.SIGCONT)
        else:
            await stack.enter_async_context(redis(tmp_path, port))
        await both.recovered()
        assert await both.let_in("192.0.2.2") == all_of(1)
        assert [len(events) for events in both.events("unavailable")] == [1, 1]


@pytest.mark.parametrize("hold_gil", [True, False])
async def test_a_stall_of_the_event_loop_is_not_a_failure_of_redis(tmp_path: Path, *, hold_gil: bool) -> None:
    port = free_port()
    limiter = RateLimiter(limits.parse("3/minute"), f"redis://127.0.0.1:{port}")
    outcomes: list[object] = []
    async with redis(tmp_path, port):
        with capture_logs() as events:
            for _ in range(4):
                attempt = asyncio.create_task(limiter.count_attempt("login", "192.0.2.1"))
                await asyncio.sleep(0)  # the call has begun
                if hold_gil:
                    sum(range(20_000_000))
                else:
                    time.sleep(0.6)  # noqa: ASYNC251
                outcomes += await asyncio.gather(attempt, return_exceptions=True)
        await limiter.close()
    assert [type(outcome) for outcome in outcomes] == [NoneType] * 3 + [TooManyRequests]
    assert {event["event"] for event in events} == {"rate_limited"}


async def test_keys_with_other_values_cost_exactness_and_no_request(tmp_path: Path) -> None:
    port = free_port()
    async with (
        redis(tmp_path, port),
        Redis(port=port) as client,
        servers(tmp_path, f"redis://127.0.0.1:{port}") as both,
    ):
        assert await both.let_in("192.0.2.1") == all_of(1)
        for key in await client.keys():
            await client.delete(key)
            await client.execute_command("LPUSH", key, *["not a time"] * LIMIT)  # type: ignore[no-untyped-call]
        assert await both.let_in("192.0.2.1") == all_of(2)
        await both.recovered()
        assert await both.let_in("192.0.2.2") == all_of(1)


async def test_connections_are_few_and_end_with_the_server(tmp_path: Path) -> None:
    port = free_port()
    limiter = RateLimiter(limits.parse("3/minute"), f"redis://127.0.0.1:{port}")
    async with redis(tmp_path, port), Redis(port=port) as client:
        await asyncio.gather(*(limiter.count_attempt("login", f"192.0.2.{i}") for i in range(100)))
        assert 1 < len(await client.client_list()) <= 1 + MAX_CONNECTIONS
        await limiter.close()
        assert len(await client.client_list()) == 1


async def test_a_frozen_redis_does_not_hold_the_end(tmp_path: Path) -> None:
    port = free_port()
    async with redis(tmp_path, port) as frozen, servers(tmp_path, f"redis://127.0.0.1:{port}") as both:
        assert await both.let_in("192.0.2.1") == all_of(1)
        frozen.send_signal(signal.SIGSTOP)
        began = time.perf_counter()
        for process, _ in both.both:
            assert await process.stop() == 0
        assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("spoil", "restore", "reason"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), "used memory"),
        (("CONFIG", "SET", "requirepass", REDIS_PASSWORD), None, "invalid username-password pair"),
    ],
    ids=["full", "locked"],
)
async def test_a_redis_that_refuses_is_unavailable(
    tmp_path: Path, spoil: tuple[str, ...], restore: tuple[str, ...] | None, reason: str
) -> None:
    port = free_port()
    url = f"redis://:wrong-{REDIS_PASSWORD}@127.0.0.1:{port}" if restore is None else f"redis://127.0.0.1:{port}"
    async with redis(tmp_path, port), Redis(port=port) as client:
        await client.execute_command(*spoil)  # type: ignore[no-untyped-call]
        async with servers(tmp_path, url) as both:
            await both.attempt(0, "192.0.2.9")
            await both.attempt(1, "192.0.2.9")
            assert await both.let_in("192.0.2.1") == all_of(2)
            await asyncio.sleep(1.5)  # a second try
            assert await both.let_in("192.0.2.3") == all_of(2)
            assert both.events("recovered") == [[], []]
            ((first,), (second,)) = both.events("unavailable")
            assert reason in first["reason"]
            assert reason in second["reason"]
            if restore is not None:
                await client.execute_command(*restore)  # type: ignore[no-untyped-call]
                await both.recovered()
                assert await both.let_in("192.0.2.2") == all_of(1)


async def test_redis_behind_tls_with_a_certificate_that_it_signed_itself(tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=redis"
    made = await finished(*command.split(), folder=tmp_path, environment={})
    assert made.exit_code == 0, made.stderr
    port = free_port()
    tls = (
        "--tls-port",
        str(port),
        "--tls-cert-file",
        "cert.pem",
        "--tls-key-file",
        "key.pem",
        "--tls-auth-clients",
        "no",
    )
    url = f"rediss://:{REDIS_PASSWORD}@127.0.0.1:{port}"
    async with redis(tmp_path, 0, *tls, "--requirepass", REDIS_PASSWORD):
        async with servers(tmp_path, f"{url}?ssl_cert_reqs=none") as both:
            for server in range(2):
                await both.attempt(server, "192.0.2.9")  # each reads the system's certificates
            await both.let_in("192.0.2.9")
            await asyncio.sleep(1.5)
            await both.let_in("192.0.2.9")
            assert await both.let_in("192.0.2.1") == all_of(1)
        async with servers(tmp_path, url) as both:
            for server in range(2):
                await both.attempt(server, "192.0.2.9")
            assert await both.let_in("192.0.2.1") == all_of(2)
            ((first,), (_,)) = both.events("unavailable")
            assert "CERTIFICATE_VERIFY_FAILED" in first["reason"]
