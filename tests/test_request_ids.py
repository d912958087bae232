"""Request ids: a plain one of the caller's is kept, any other is replaced by one of our own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.conftest import on_one_database
from tests.support.raw_http import connect, head

if TYPE_CHECKING:
    from tests.support.client import Client

pytestmark = on_one_database


@pytest.mark.parametrize("given", ["a", "0", "._-", "A-Za-z0-9._-", "8b4f1c1e-5d0b-4f6e-9d5c-0d3c1b7a2e11", "x" * 128])
async def test_a_plain_request_id_is_the_callers(client: Client, given: str) -> None:
    for path in ("/health", "/nowhere", "/tasks"):
        assert (await client.request("GET", path, headers={"X-Request-ID": given})).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a,b", "a/b", "a:b", '"a"', "ä", "<script>", "%0A", "\u0663"])
async def test_any_other_request_id_is_replaced(client: Client, given: str) -> None:
    async with connect(client) as connection:
        for path in ("/health", "/nowhere", "/tasks"):
            await connection.send(head("GET", path, f"X-Request-ID: {given}"))
            assert re.fullmatch("[0-9a-f]{32}", (await connection.read_answer()).headers["X-Request-ID"])


async def test_a_repeated_request_id_is_replaced(client: Client) -> None:
    async with connect(client) as connection:
        await connection.send(head("GET", "/health", "X-Request-ID: a", "X-Request-ID: b"))
        assert re.fullmatch("[0-9a-f]{32}", (await connection.read_answer()).headers["X-Request-ID"])


async def test_every_request_has_an_id_of_its_own(client: Client) -> None:
    ids = {(await client.request("GET", "/health")).headers["X-Request-ID"] for _ in range(3)}
    assert len(ids) == 3
