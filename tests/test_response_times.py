"""Simple requests are fast, and a hundred concurrent ones succeed (SC-001, SC-004; TM-F16)."""

import asyncio
import time
from itertools import chain
from statistics import quantiles

import pytest

from tests.support.client import Paths, Person


async def use(person: Person, paths: Paths) -> list[float]:
    """Return the seconds of each request of a user."""
    item = f"{paths.tasks}/{(await person.create(paths))['id']}"
    seconds = []
    for _ in range(25):
        for method, path, body in (
            ("POST", paths.tasks, {"title": "x"}),
            ("GET", f"{paths.tasks}?per_page=20", ...),
            ("GET", item, ...),
            ("PUT", item, {"completed": True}),
        ):
            started = time.perf_counter()
            response = await person.request(method, path, body)
            seconds.append(time.perf_counter() - started)
            assert response.status in (200, 201)
    return seconds


@pytest.mark.requirement("SC-001", "TM-F16")
async def test_95_of_100_requests_take_less_than_200_ms(alice: Person, paths: Paths) -> None:
    seconds = chain.from_iterable(await asyncio.gather(*(use(alice, paths) for _ in range(4))))
    assert quantiles(seconds, n=20)[-1] < 0.2


@pytest.mark.requirement("SC-004")
async def test_100_concurrent_lists_succeed(alice: Person, paths: Paths) -> None:
    task = await alice.create(paths)
    responses = await asyncio.gather(*(alice.request("GET", paths.tasks) for _ in range(100)))
    assert [(response.status, response.body["tasks"]) for response in responses] == [(200, [task])] * 100
