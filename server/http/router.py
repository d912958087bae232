"""Finds the handler of a request in a dictionary of path segments, and runs it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from server.http.exchange import Exchange
from server.http.handler import Handler

MakeHandler = Callable[[Exchange], Handler]


class Router:
    """Routes requests to handlers.

    Segments are compared after decoding: ``%74asks`` is ``tasks``, ``%2F`` does not separate (RFC 3986 section 2.4).

    Args:
        routes: makes the handler for a path pattern, like ``/tasks/{id}``; only the last segment may be a parameter.
        fallback: makes the handler for any other path, and for requests that are rejected before they are routed.
    """

    def __init__(self, routes: Mapping[str, MakeHandler], fallback: MakeHandler) -> None:
        self._fallback = fallback
        self._routes: dict[tuple[str | None, ...], MakeHandler] = {}
        for pattern, make_handler in routes.items():
            *parents, last = pattern.split("/")
            self._routes[*parents, None if last.startswith("{") else last] = make_handler
        self._longest = max(map(len, self._routes))

    def run(self, exchange: Exchange) -> None:
        """Start the handler of a request.

        Tornado's ``Application`` would collect the body a second time, and add two callbacks to each request.
        """
        make_handler, parameters = self._find(exchange.path) if exchange.refusal is None else (self._fallback, [])
        coroutine = make_handler(exchange)._execute([], *parameters)  # noqa: SLF001
        exchange.task = asyncio.get_running_loop().create_task(coroutine)

    def _find(self, path: str) -> tuple[MakeHandler, list[Any]]:
        """Return the function that makes a path's handler, and the values of the path's parameters."""
        segments = path.split("/", self._longest)
        if "%" in path and len(segments) <= self._longest:  # unquoting 30,000 segments would take 100 ms
            segments = list(map(unquote, segments))
        if make_handler := self._routes.get(tuple(segments)):
            return make_handler, []
        *parents, last = segments
        if last and (make_handler := self._routes.get((*parents, None))):
            return make_handler, [last]
        return self._fallback, []
