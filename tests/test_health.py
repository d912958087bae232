"""Health: whether the process is alive, and whether it is ready to work (FR-062)."""

import asyncio

import pytest

from tests.conftest import on_one_database
from tests.support.client import Client
from tests.support.processes import writes_locked


@pytest.mark.requirement("FR-062")
async def test_server_is_healthy_and_ready(client: Client) -> None:
    for path, body in (("/health", {"status": "healthy"}), ("/health/ready", {"status": "ready"})):
        response = await client.request("GET", path)
        assert (response.status, response.body) == (200, body)
        assert response.headers["Cache-Control"] == "no-store"
        assert "ETag" not in response.headers


@pytest.mark.requirement("FR-062")
@pytest.mark.settings(DATABASE_URL="postgresql://127.0.0.1:1/x")
@on_one_database
async def test_server_without_its_database_is_healthy_but_not_ready(client: Client) -> None:
    assert (await client.request("GET", "/health")).status == 200
    assert (await client.request("GET", "/health/ready")).outcome == (503, "Service temporarily unavailable")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_server_with_a_hanging_database_is_not_ready_after_2_seconds(client: Client, database_url: str) -> None:
    with writes_locked(database_url):
        async with asyncio.timeout(4):
            assert (await client.request("GET", "/health/ready")).outcome == (503, "Service temporarily unavailable")
