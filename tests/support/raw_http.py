"""Raw HTTP connections, for requests that a well-behaved client cannot send."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from tornado.httputil import HTTPHeaders, parse_response_start_line

from tests.support.client import Client, Response, check

PATIENCE_SECONDS = 10


def head(method: str, path: str, *lines: str, token: str | None = None) -> bytes:
    """Return the bytes of a request up to its body."""
    authorization = [f"Authorization: Bearer {token}"] if token else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *authorization, *lines, "", ""]).encode()


def with_body(method: str, path: str, body: bytes, *lines: str, token: str | None = None) -> bytes:
    """Return the bytes of a request with a body and its ``Content-Length``."""
    return head(method, path, *lines, f"Content-Length: {len(body)}", token=token) + body


def chunk(data: bytes) -> bytes:
    """Return a chunk of a chunked body; an empty chunk ends the body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunked(pieces: Iterable[bytes]) -> bytes:
    """Return a whole chunked body."""
    return b"".join(map(chunk, [*pieces, b""]))


@dataclass(frozen=True)
class Connection:
    """A connection to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            self.writer.write(data)
            await self.writer.drain()

    async def read_head(self) -> bytes:
        """Return the status line and headers of a response."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def read_response(self, method: str = "GET") -> Response:
        """Return the next response, after checking it."""
        start_line, _, lines = (await self.read_head()).decode().partition("\r\n")
        headers = HTTPHeaders.parse(lines)
        length = 0 if method == "HEAD" else int(headers.get("Content-Length", "0"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            body = await self.reader.readexactly(length)
        return check(method, parse_response_start_line(start_line).code, headers, body)

    async def request(self, data: bytes, method: str = "GET") -> Response:
        """Send a request, and return its response."""
        await self.send(data)
        return await self.read_response(method)

    async def read_to_end(self) -> bytes:
        """Return what arrives until the server closes the connection."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.read()


@asynccontextmanager
async def connect(client: Client) -> AsyncIterator[Connection]:
    """Open a connection to the client's server, and close it at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
