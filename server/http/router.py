"""Finds the handler of a request, with one look into a dictionary of path segments, and runs it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tornado.web import Application, RequestHandler

    from server.http.exchange import Request
    from server.routes import Route


class Target(NamedTuple):
    """A handler, and the arguments of its ``initialize``."""

    handler: type[RequestHandler]
    arguments: dict[str, Any]


class Router:
    """Routes requests to the handlers of an application.

    Segments are compared decoded, so that ``%74asks`` is ``tasks`` and ``%2F`` does not separate any (RFC 3986 section
    2.4). A parameter stands for the whole last segment.

    Args:
        application: what the handlers belong to.
        routes: the API.
        fallback: the handler of every other path, and of requests that are refused before they are routed.
    """

    def __init__(self, application: Application, routes: Sequence[Route], fallback: type[RequestHandler]) -> None:
        self._application = application
        self._running: set[asyncio.Task[None]] = set()
        self._fallback = Target(fallback, {})
        self._fixed: dict[tuple[str, ...], Target] = {}
        self._parametrised: dict[tuple[str, ...], Target] = {}
        self._longest = max(route.pattern.count("/") for route in routes) + 1
        for route in routes:
            *parents, last = route.pattern.split("/")
            target = Target(route.handler, {"route": route.pattern, "contract": route.contract})
            if last.startswith("{"):
                self._parametrised[tuple(parents)] = target
            else:
                self._fixed[*parents, last] = target

    def run(self, request: Request) -> None:
        """Start the handler of a request.

        ``Application`` would start it through a delegate that also collects the body and adds two callbacks.
        """
        target, parameters = self._find(request.path) if request.refusal is None else (self._fallback, [])
        handler = target.handler(self._application, request, **target.arguments)
        task = asyncio.get_running_loop().create_task(handler._execute([], *parameters))  # noqa: SLF001
        self._running.add(task)  # asyncio itself keeps no task alive
        task.add_done_callback(self._running.discard)

    def _find(self, path: str) -> tuple[Target, list[Any]]:
        """Return what a path leads to, and the values of its parameters."""
        segments = path.split("/", self._longest)
        if "%" in path and len(segments) <= self._longest:  # unquoting 30,000 segments takes 100 ms
            segments = list(map(unquote, segments))
        if target := self._fixed.get(tuple(segments)):
            return target, []
        last = segments.pop()
        if last and (target := self._parametrised.get(tuple(segments))):
            return target, [last]
        return self._fallback, []
