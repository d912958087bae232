"""``python -m benchmarks.baselines.tornado_constant PORT``: Tornado, giving ``/{operation}/{bytes}`` so many bytes."""

from __future__ import annotations

import asyncio
import sys
from functools import cache

from tornado.web import Application, RequestHandler


@cache
def constant(size: int) -> bytes:
    """Return the answer of a size."""
    return b"x" * size


class ConstantHandler(RequestHandler):
    """Answers every verb alike."""

    def get(self, size: str) -> None:
        """Answer."""
        self.set_header("Content-Type", "application/json")
        self.finish(constant(int(size)))

    post = put = get


async def main() -> None:
    """Serve until the process is ended."""
    Application([("/[a-z]+/([0-9]+)", ConstantHandler)]).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
