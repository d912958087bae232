"""``python -m benchmarks.baselines.tornado_aiopg PORT``: Tornado runs a statement, then responds with a constant.

``/{operation}/{bytes}`` runs that operation's statement on the database of DATABASE_URL.
"""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import cycle
from typing import TYPE_CHECKING, Any

import aiopg
from tornado.web import Application, RequestHandler

from benchmarks.baselines.aiopg_statement import NO_EXTRAS, run
from benchmarks.baselines.tornado_constant import constant
from benchmarks.database import rotating_ids
from benchmarks.operations import NAMES
from benchmarks.statements import statement
from benchmarks.subjects import POOL

if TYPE_CHECKING:
    from collections.abc import Iterator


class StatementHandler(RequestHandler):
    """Answers every verb alike."""

    def initialize(self, pool: aiopg.Pool, statements: dict[str, tuple[str, Iterator[dict[str, Any]]]]) -> None:
        """Take what all requests share."""
        self.pool, self.statements = pool, statements

    async def get(self, operation: str, size: str) -> None:
        """Run the statement, and answer."""
        text, turns = self.statements[operation]
        await run(self.pool, text, next(turns))
        self.set_header("Content-Type", "application/json")
        self.finish(constant(int(size)))

    post = put = get


async def main() -> None:
    """Serve until the process is ended."""
    url = os.environ["DATABASE_URL"]
    ids = rotating_ids(url)
    statements = {}
    for name in NAMES:
        text, values = await statement(name, ids)
        statements[name] = (text, cycle(values))
    async with aiopg.create_pool(url, minsize=POOL, maxsize=POOL, **NO_EXTRAS) as pool:
        shared = {"pool": pool, "statements": statements}
        Application([("/([a-z]+)/([0-9]+)", StatementHandler, shared)]).listen(int(sys.argv[1]), "127.0.0.1")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
