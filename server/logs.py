"""Log lines: our own events and every other library's records, each one line on standard output."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, cast

import orjson
import structlog
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer

from server import clock
from server.log_writer import STANDARD_OUTPUT, LineWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

LAST_SECONDS = 0.4  # that the reader of the log has when the time to end is over
SHORT_ID = 8  # characters of an id that people see

# The keys of each line of the request that is handled.
request_keys: ContextVar[Mapping[str, str | None]] = ContextVar("request_keys", default={"request_id": None})  # noqa: B039

_CONTROL_CHARACTERS = re.compile(r"[\x7f-\x9f]")  # those that JSON leaves as they are
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # and bidirectional formatting
_NOT_IN_TRACES = re.compile(r"(?!\n)" + _UNPRINTABLE.pattern)
_writer = LineWriter()


def configure(level: str, line_format: str) -> None:
    """Set up structlog and the standard library's logging; call it once, before the first line.

    Args:
        level: the least severe level that is written, a name of the ``logging`` module in lower case.
        line_format: a key of ``RENDERERS``.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    renderers = RENDERERS[line_format]()
    structlog.configure(
        processors=[_complete, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: _writer,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(cast("TextIO", _writer))
    handler.terminator = ""
    # One lock: a garbage collector's warning needs both, whichever of them its thread holds already.
    handler.lock = _writer.lock
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_complete, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    # Below warnings other libraries quote what they handle: headers with tokens in them, statements with hashes.
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    logging.captureWarnings(capture=True)
    if not _writer.is_alive():
        _writer.start()


def flush(seconds: float = math.inf) -> None:
    """Wait at most this many seconds until every line is written, or less if the reader takes none."""
    _writer.wait(seconds)


def _complete(_logger: WrappedLogger, level: str, event: EventDict) -> EventDict:
    """Add the keys that every line has, first."""
    head = {"event": event.pop("event"), "level": level, "timestamp": clock.format_time(clock.now())}
    return {**head, **request_keys.get(), **event}


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        line = orjson.dumps(event, default=repr).decode()
    except TypeError:  # a lone surrogate, or a number of more than 64 bits: the standard library writes both
        line = json.dumps(event, default=repr)
    return line if line.isascii() and "\x7f" not in line else _CONTROL_CHARACTERS.sub(_escape, line)


def _escape(character: re.Match[str]) -> str:
    return f"\\u{ord(character[0]):04x}"


def _json_renderers() -> list[Processor]:
    # Stack traces without the frames' variables: those hold passwords and tokens.
    return [ExceptionRenderer(ExceptionDictTransformer(show_locals=False)), _render_json]


# For people


def _console_renderers() -> list[Processor]:
    # https://no-color.org
    colors = os.isatty(STANDARD_OUTPUT) and not os.environ.get("NO_COLOR")
    render = structlog.dev.ConsoleRenderer(
        colors=colors,
        pad_event_to=0,
        pad_level=False,
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )
    return [structlog.processors.format_exc_info, _shorten, render]


def _shorten(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Shorten a line for people, and escape the characters that control a terminal."""
    event["timestamp"] = event["timestamp"][11:19]
    if "path" in event:
        event.pop("route", None)
    for name in ("request_id", "trace_id", "user_id"):
        if event.get(name):
            event[name] = event[name][:SHORT_ID]
    return {
        name: (_NOT_IN_TRACES if name == "exception" else _UNPRINTABLE).sub(_escape, value)
        if isinstance(value, str)
        else value
        for name, value in event.items()
        if value is not None
    }


# For aggregators with names of their own; docs/operations.md links to their documentation


class _Schema(NamedTuple):
    """What an aggregator calls the keys of a line.

    Args:
        names: the path of names to a key's value, in the order of the line.
        values: what turns a key's value into the aggregator's.
        others: the path to the keys without a name.
        constants: what each line has in addition.
    """

    names: Mapping[str, str]
    values: Mapping[str, Callable[[Any], Any]]
    others: str = ""
    constants: Mapping[str, str] = {}

    def renderers(self) -> list[Processor]:
        """Return the processors that write lines with these names, and stack traces as text."""
        return [ExceptionRenderer(_exception_texts), self._rename, _render_json]

    def _rename(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event |= event.pop("exception", {})
        line: dict[str, Any] = {}
        ordered = {key: event[key] for key in self.names if key in event}
        for key, value in {**ordered, **event}.items():
            if value is None:
                continue
            *parents, name = self.names.get(key, f"{self.others} {key}").split()
            place = line
            for parent in parents:
                place = place.setdefault(parent, {})
            place[name] = self.values[key](value) if key in self.values else value
        return {**line, **self.constants}


def _exception_texts(exc_info: ExcInfo) -> Any:
    return {
        "exc_type": exc_info[0].__name__,
        "exc_value": str(exc_info[1]),
        "exc_text": "".join(traceback.format_exception(*exc_info)).rstrip(),
    }


def _nanoseconds(milliseconds: float) -> int:
    return round(milliseconds * 1_000_000)


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.6f}s"


def _trace_name(trace_id: str) -> str:
    """Return Google's name of a trace, if Google's variable tells the project."""
    project = os.environ.get("GOOGLE_CLOUD_PROJECT")
    return f"projects/{project}/traces/{trace_id}" if project else trace_id


_ECS = _Schema(
    names={
        "timestamp": "@timestamp",
        "level": "log.level",  # ECS loggers do not nest it
        "event": "message",
        "logger": "log logger",
        "request_id": "http request id",
        "trace_id": "trace id",
        "method": "http request method",
        "path": "url path",
        "status": "http response status_code",
        "duration_ms": "event duration",
        "user_id": "user id",
        "remote_ip": "client ip",
        "host": "server address",
        "port": "server port",
        "exc_type": "error type",
        "exc_value": "error message",
        "exc_text": "error stack_trace",
    },
    values={"duration_ms": _nanoseconds},
    others="labels",
    constants={"ecs.version": "8.11.0"},
)
_DATADOG = _Schema(
    names={
        "event": "message",
        "level": "status",
        "timestamp": "timestamp",
        "logger": "logger name",
        "request_id": "http request_id",
        "method": "http method",
        "route": "http route",
        "path": "http url_details path",
        "status": "http status_code",
        "duration_ms": "duration",
        "user_id": "usr id",
        "remote_ip": "network client ip",
        "host": "server address",  # Datadog would take it for the machine that the line is of
        "port": "server port",
        "exc_type": "error kind",
        "exc_value": "error message",
        "exc_text": "error stack",
    },
    values={"duration_ms": _nanoseconds},
)
_GCP = _Schema(
    names={
        "event": "message",
        "level": "severity",
        "timestamp": "time",
        "trace_id": "logging.googleapis.com/trace",
        "method": "httpRequest requestMethod",
        "path": "httpRequest requestUrl",
        "status": "httpRequest status",
        "duration_ms": "httpRequest latency",
        "remote_ip": "httpRequest remoteIp",
        "exc_text": "stack_trace",
    },
    values={"level": str.upper, "duration_ms": _seconds, "trace_id": _trace_name},
)

RENDERERS: dict[str, Callable[[], list[Processor]]] = {
    "json": _json_renderers,
    "console": _console_renderers,
    "ecs": _ECS.renderers,
    "datadog": _DATADOG.renderers,
    "gcp": _GCP.renderers,
}
