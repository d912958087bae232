"""Request ids: a well-formed one of the caller is kept, any other is replaced."""

import re

import pytest

from tests.conftest import on_one_database
from tests.support.client import Client
from tests.support.raw_http import connect, head

pytestmark = on_one_database


@pytest.mark.parametrize("given", ["._-", "A-Za-z0-9._-", "x" * 128])
async def test_well_formed_request_id_is_kept(client: Client, given: str) -> None:
    response = await client.request("GET", "/health", headers={"X-Request-ID": given})
    assert response.headers["X-Request-ID"] == given


async def test_other_request_ids_are_replaced_by_unique_ones(client: Client) -> None:
    values = ["", "x" * 129, "a b", "a,b", "a/b", "a:b", '"a"', "ä", "<script>", "\u0663", "a\r\nX-Request-ID: b"]
    lines = ["X-No: id", *(f"X-Request-ID: {value}" for value in values)]
    async with connect(client) as connection:
        responses = [await connection.request(head("GET", "/health", line)) for line in lines]
    ids = {response.headers["X-Request-ID"] for response in responses}
    assert len(ids) == len(responses)
    assert all(re.fullmatch("[0-9a-f]{32}", given) for given in ids)
