"""Long lists are sent in pieces, and without an entity tag."""

import json
from typing import Any

import pytest
from sqlalchemy import func, select

from server.database import DatabaseUnavailable
from server.database.postgres import FEW_ROWS, PostgresDriver
from server.queries import tasks
from tests.support.client import PATHS, Person
from tests.support.raw_http import connect, head


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SHORT_LIST", 2), ("MIN_PIECE", 3), ("MAX_PIECE", 4)):
        monkeypatch.setattr(f"server.handlers.tasks.{name}", value)


@pytest.mark.usefixtures("small_pieces")
async def test_list_sent_in_pieces_is_complete_and_has_no_tag(alice: Person, bob: Person) -> None:
    await bob.create(PATHS[0])
    created: list[dict[str, Any]] = []
    for count in range(9):
        for method in ("GET", "HEAD"):
            response = await alice.request(method, PATHS[0].tasks, headers={"If-None-Match": "*"} if count > 2 else {})
            assert response.status == 200
            assert response.headers["Cache-Control"] == "private, no-cache"
            assert ("ETag" in response.headers) == (count <= 2)
            assert response.body == ({"tasks": created[::-1]} if method == "GET" else None)
        created.append(await alice.create(PATHS[0], str(count)))
    request = head("HEAD", PATHS[0].tasks, token=alice.token)
    async with connect(alice.client) as connection:
        assert (await connection.request(request, "HEAD")).status == 200
        await connection.send(request.replace(b"HEAD", b"GET").replace(b"HTTP/1.1", b"HTTP/1.0"))  # without chunks
        content = (await connection.read_to_end()).partition(b"\r\n\r\n")[2]
    assert json.loads(content) == {"tasks": created[::-1]}


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_long_list_that_fails_does_not_look_complete(
    alice: Person, monkeypatch: pytest.MonkeyPatch, version: bytes
) -> None:
    for number in range(7):
        await alice.create(PATHS[0], str(number))
    list_after = tasks.list_after

    async def fail_later(database: Any, user_id: str, last: tasks.Task | None, limit: int) -> list[tasks.Task]:
        if last is not None:
            raise DatabaseUnavailable("on purpose")
        return await list_after(database, user_id, last, limit)

    monkeypatch.setattr("server.queries.tasks.list_after", fail_later)
    async with connect(alice.client) as connection:
        await connection.send(head("GET", PATHS[0].tasks, token=alice.token).replace(b"HTTP/1.1", version))
        if version == b"HTTP/1.0":  # the end of the connection is the end of the content
            with pytest.raises(ConnectionResetError):
                await connection.read_to_end()
        else:
            response = await connection.read_to_end()
            assert response.startswith(b"HTTP/1.1 200 OK\r\n")
            assert not response.endswith(b"0\r\n\r\n")


@pytest.mark.usefixtures("io_loop")
async def test_idle_connection_keeps_no_long_result_in_memory(empty_postgresql_url: str) -> None:
    driver = PostgresDriver(empty_postgresql_url)
    used = []
    for rows in (FEW_ROWS, FEW_ROWS, FEW_ROWS + 1, 1):
        assert len(await driver.execute(select(func.generate_series(1, rows)), {})) == rows
        ((cursor, _),) = driver.idle
        used.append(cursor)
    assert used[0] is used[1]
    assert used[0].closed
    assert used[2] is used[3]
    assert not used[2].closed
    await driver.close()
