"""What PostgreSQL's errors mean for a request: decided by their SQLSTATE."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func, select, text
from structlog.testing import capture_logs

from server.database import Database, DatabaseUnavailable, QueryError
from server.database.migrations import migrate
from server.database.postgres import PostgresDriver
from tests.conftest import execute
from tests.support.client import PATHS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from server.services import Services
    from tests.support.client import Client, Person

TIMEOUT_SECONDS = 5.0
RAISE = """
    CREATE FUNCTION fail(state text, times int) RETURNS int LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('calls') <= times THEN RAISE EXCEPTION 'on purpose' USING ERRCODE = state; END IF;
        RETURN currval('calls');
    END $$
"""


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own, migrated unless the test asks for an empty one."""
    kind = getattr(request, "param", "migrated")
    if kind == "empty sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    url: str = request.getfixturevalue("empty_postgresql_url")
    if kind == "migrated":
        migrate(url)
    return url


@pytest.fixture
def raising_url(empty_postgresql_url: str) -> str:
    """A database with a function that fails with any SQLSTATE, the first times that it is called."""
    for statement in ("CREATE SEQUENCE calls", RAISE):
        execute(empty_postgresql_url, statement)
    return empty_postgresql_url


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[Database, PostgresDriver]]:
    driver = PostgresDriver(url)
    try:
        yield Database(driver, 2, TIMEOUT_SECONDS), driver
    finally:
        await driver.close()


def set_read_only(url: str, value: str) -> None:
    name = urlsplit(url).path.removeprefix("/")
    postgres = urlsplit(url)._replace(path="/postgres").geturl()  # our own statement is refused in the database itself
    execute(postgres, f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")


# A server that is read-only


async def test_a_session_that_turned_read_only_costs_no_request(
    client: Client, services: Services, alice: Person
) -> None:
    turn = select(func.set_config("default_transaction_read_only", "on", False))
    for request in (("POST", PATHS[0].tasks, {"title": "x"}), ("GET", "/health/ready")):
        assert await services.database.for_request().fetch_all(turn, {}) == [("on",)]
        response = await alice.request(*request)
        assert response.status == (201 if request[0] == "POST" else 200)
    assert (await client.request("GET", "/health/ready")).status == 200


async def test_a_read_only_database_takes_no_writes_and_is_not_ready_until_it_is_not(
    database_url: str, client: Client, services: Services, alice: Person
) -> None:
    set_read_only(database_url, "on")
    turn = select(func.set_config("default_transaction_read_only", "on", False))
    await services.database.for_request().fetch_all(turn, {})  # the session that there is
    for _ in range(2):
        response = await alice.request("POST", PATHS[0].tasks, {"title": "x"})
        assert (response.status, response.error) == (500, "Service temporarily unavailable")
        assert (await client.request("GET", "/health/ready")).status == 503
        assert await alice.list(PATHS[0]) == []
    set_read_only(database_url, "off")
    await alice.create(PATHS[0])
    assert (await client.request("GET", "/health/ready")).status == 200


# SQLSTATEs


@pytest.mark.parametrize("state", ["57P01", "57P02", "57P03"])
@pytest.mark.usefixtures("io_loop")
async def test_a_server_that_ends_or_starts_is_unavailable_and_its_connection_is_closed(
    raising_url: str, state: str
) -> None:
    async with opened(raising_url) as (database, driver):
        with pytest.raises(DatabaseUnavailable, match=f"{state}: on purpose"):
            await database.for_request().fetch_one(select(func.fail(state, 1)), {})
        assert not driver.idle
        assert await database.for_request().fetch_one(select(func.fail(state, 1)), {}) == (2,)


@pytest.mark.parametrize("state", ["08006", "53100", "55P03", "57014", "58030"])
@pytest.mark.usefixtures("io_loop")
async def test_a_server_that_cannot_run_a_statement_now_is_unavailable(raising_url: str, state: str) -> None:
    async with opened(raising_url) as (database, driver):
        with pytest.raises(DatabaseUnavailable):
            await database.for_request().fetch_one(select(func.fail(state, 1)), {})
        assert len(driver.idle) == 1


@pytest.mark.parametrize("state", ["40001", "40P01"])
@pytest.mark.usefixtures("io_loop")
async def test_a_statement_that_could_not_be_serialised_is_run_again(raising_url: str, state: str) -> None:
    async with opened(raising_url) as (database, driver):
        assert await database.for_request().fetch_one(select(func.fail(state, 3)), {}) == (4,)
        assert len(driver.idle) == 1
        with pytest.raises(DatabaseUnavailable):
            await database.for_request(0.2).fetch_one(select(func.fail(state, 1_000_000)), {})


@pytest.mark.parametrize("state", ["22012", "42501", "42P01", "XX000"])
@pytest.mark.usefixtures("io_loop")
async def test_any_other_sqlstate_is_a_defect_of_ours(raising_url: str, state: str) -> None:
    async with opened(raising_url) as (database, _):
        with pytest.raises(QueryError, match=f"^{state}: on purpose$"):
            await database.for_request().fetch_one(select(func.fail(state, 1)), {})


@pytest.mark.parametrize("database_url", ["empty sqlite", "empty postgresql"], indirect=True)
@pytest.mark.usefixtures("database_url")
async def test_a_missing_table_is_a_defect_of_ours_on_both_databases(client: Client) -> None:
    with capture_logs() as events:
        response = await client.request("POST", PATHS[0].login, {"email": "a@example.com", "password": "x"})
    assert (response.status, response.error) == (500, "Internal server error")
    assert [event["event"] for event in events] == ["internal_error", "request"]
    assert (await client.request("GET", "/health/ready")).status == 503


@pytest.mark.usefixtures("io_loop")
async def test_an_error_without_sqlstate_keeps_its_text(raising_url: str) -> None:
    async with opened(raising_url) as (database, _):
        with pytest.raises(QueryError, match=r"^can't execute an empty query$"):
            await database.for_request().fetch_one(text(""), {})
