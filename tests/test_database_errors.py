"""What PostgreSQL's errors mean for a request: decided by their SQLSTATE."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func, select, text
from structlog.testing import capture_logs

from server.database import DatabaseUnavailable, QueryError
from server.database.migrations import migrate
from server.services import Services
from tests.conftest import execute
from tests.support.client import PATHS, Client, Person
from tests.test_database_connections import opened

RAISE = """
    CREATE SEQUENCE calls;
    CREATE FUNCTION fail(state text, times int) RETURNS int LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('calls') <= times THEN RAISE EXCEPTION 'on purpose' USING ERRCODE = state; END IF;
        RETURN currval('calls');
    END $$
"""
BECOME_READ_ONLY = select(func.set_config("default_transaction_read_only", "on", False), func.pg_sleep(0.05))


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own: migrated, or an empty one of the kind that the test asks for."""
    kind = getattr(request, "param", None)
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    url: str = request.getfixturevalue("empty_postgresql_url")
    if kind is None:
        migrate(url)
    return url


@pytest.fixture
def raising_url(empty_postgresql_url: str) -> str:
    """A database with a function that fails with any SQLSTATE, the first times that it is called."""
    execute(empty_postgresql_url, RAISE)
    return empty_postgresql_url


def set_read_only(url: str, value: str) -> None:
    name = urlsplit(url).path.removeprefix("/")
    postgres = urlsplit(url)._replace(path="/postgres").geturl()  # a read-only database refuses this itself
    execute(postgres, f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")


async def make_sessions_read_only(services: Services) -> None:
    """Make several sessions of the server read-only, as they are after a failover."""
    await asyncio.gather(*(services.database.for_request().fetch_all(BECOME_READ_ONLY, {}) for _ in range(3)))


async def test_sessions_that_became_read_only_cost_no_request(services: Services, alice: Person) -> None:
    await make_sessions_read_only(services)
    await alice.create(PATHS[0])
    await make_sessions_read_only(services)
    assert (await alice.request("GET", "/health/ready")).status == 200


async def test_read_only_database_accepts_no_writes_and_is_not_ready(
    database_url: str, services: Services, alice: Person
) -> None:
    set_read_only(database_url, "on")
    await make_sessions_read_only(services)
    for _ in range(2):
        async with asyncio.timeout(3):  # less than the deadline: each address is tried once
            response = await alice.request("POST", PATHS[0].tasks, {"title": "x"})
        assert response.outcome == (500, "Service temporarily unavailable")
        assert (await alice.request("GET", "/health/ready")).status == 503
        assert await alice.list(PATHS[0]) == []
    set_read_only(database_url, "off")
    await alice.create(PATHS[0])
    assert (await alice.request("GET", "/health/ready")).status == 200


@pytest.mark.parametrize(
    ("state", "connections_kept"),
    [("57P01", 0), ("08006", 1), ("53100", 1), ("55P03", 1), ("57014", 1), ("58030", 1)],
)
@pytest.mark.usefixtures("io_loop")
async def test_server_that_cannot_run_statements_now_is_unavailable(
    raising_url: str, state: str, connections_kept: int
) -> None:
    async with opened(raising_url) as (database, driver):
        with pytest.raises(DatabaseUnavailable, match=f"^{state}: on purpose$"):
            await database.for_request().fetch_one(select(func.fail(state, 1)), {})
        assert len(driver.idle) == connections_kept
        assert await database.for_request().fetch_one(select(func.fail(state, 1)), {}) == (2,)


@pytest.mark.parametrize("state", ["40001", "40P01"])
@pytest.mark.usefixtures("io_loop")
async def test_statement_that_failed_to_serialise_is_run_again(raising_url: str, state: str) -> None:
    async with opened(raising_url) as (database, driver):
        assert await database.for_request().fetch_one(select(func.fail(state, 3)), {}) == (4,)
        assert len(driver.idle) == 1
        with pytest.raises(DatabaseUnavailable):
            await database.for_request(0.2).fetch_one(select(func.fail(state, 1_000_000)), {})


@pytest.mark.usefixtures("io_loop")
async def test_other_errors_are_defects_of_the_server(raising_url: str) -> None:
    async with opened(raising_url) as (database, _):
        for state in ("22012", "42501", "XX000"):
            with pytest.raises(QueryError, match=f"^{state}: on purpose$"):
                await database.for_request().fetch_one(select(func.fail(state, 1_000_000)), {})
        with pytest.raises(QueryError, match=r"^can't execute an empty query$"):  # it has no SQLSTATE
            await database.for_request().fetch_one(text(""), {})


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
async def test_missing_table_is_a_defect_of_the_server(client: Client) -> None:
    with capture_logs() as events:
        response = await client.request("POST", PATHS[0].login, {"email": "a@example.com", "password": "x"})
    assert response.outcome == (500, "Internal server error")
    assert [event["event"] for event in events] == ["internal_error", "request"]
    assert (await client.request("GET", "/health/ready")).status == 503


async def test_statement_that_was_not_sent_may_be_repeated(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.database.MAX_WAITING_STATEMENTS", 0)
    with capture_logs():
        response = await alice.request("GET", PATHS[0].tasks)
    assert response.outcome == (500, "Service temporarily unavailable")
    assert response.headers["Retry-After"] == "1"
