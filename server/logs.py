"""Logging: the server's own events and the records of every library, one line each, to standard output."""

import json
import logging
import os
import re
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, TextIO, cast

import orjson
import structlog
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from server import clock
from server.log_writer import STANDARD_OUTPUT, LineWriter

# The keys and values that are added to each log line of the current request
request_keys: ContextVar[Mapping[str, str | None]] = ContextVar("request_keys", default={"request_id": None})  # noqa: B039

_CONTROL_CHARACTERS = re.compile(r"[\x7f-\x9f]")  # those that JSON encoders do not escape
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # also line separators and bidi controls
_UNPRINTABLE_IN_TRACES = re.compile(r"(?!\n)" + _UNPRINTABLE.pattern)
_writer = LineWriter()
flush = _writer.wait


def configure(level: str, line_format: str) -> None:
    """Set up structlog and the standard library's logging; call it once, before the first line."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    renderers = RENDERERS[line_format]()
    structlog.configure(
        processors=[_add_keys, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: _writer,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(cast("TextIO", _writer))
    handler.terminator = ""
    # One lock for both: garbage collection can log a warning, which needs both, in a thread that already holds one.
    handler.lock = _writer.lock
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_add_keys, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    # Below the level of warnings, libraries log their data: headers with tokens, statements with password hashes.
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    logging.captureWarnings(capture=True)
    if not _writer.is_alive():
        _writer.start()


def _add_keys(_logger: WrappedLogger, level: str, event: EventDict) -> EventDict:
    """Add the keys that every line has, before the others."""
    head = {"event": event.pop("event"), "level": level, "timestamp": clock.format_time(clock.now())}
    return {**head, **request_keys.get(), **event}


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        line = orjson.dumps(event, default=repr).decode()
    except TypeError:  # a lone surrogate, or an integer of more than 64 bits; the standard library accepts both
        line = json.dumps(event, default=repr)
    return line if line.isascii() and "\x7f" not in line else _CONTROL_CHARACTERS.sub(_escape, line)


def _escape(character: re.Match[str]) -> str:
    return f"\\u{ord(character[0]):04x}"


def _json_renderers() -> list[Processor]:
    # Stack traces without local variables, which may contain passwords and tokens.
    return [ExceptionRenderer(ExceptionDictTransformer(show_locals=False)), _render_json]


# The format for human readers


def _console_renderers() -> list[Processor]:
    render = structlog.dev.ConsoleRenderer(
        colors=os.isatty(STANDARD_OUTPUT) and not os.environ.get("NO_COLOR"),  # https://no-color.org
        pad_event_to=0,
        pad_level=False,
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )
    return [structlog.processors.format_exc_info, _shorten, render]


def _shorten(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Shorten a line for human readers, and escape the characters that control a terminal."""
    event["timestamp"] = event["timestamp"][11:19]
    if "path" in event:
        event.pop("route", None)
    for name in ("request_id", "trace_id", "user_id"):
        if event.get(name):
            event[name] = event[name][:8]
    return {
        name: (_UNPRINTABLE_IN_TRACES if name == "exception" else _UNPRINTABLE).sub(_escape, value)
        if isinstance(value, str)
        else value
        for name, value in event.items()
        if value is not None
    }


# The formats of log aggregators; docs/operations.md links to their documentation

# The names of each key for ECS, Datadog and Google Cloud, as a path from the outermost object; "" if it is not renamed
_NAMES = {
    "timestamp": ("@timestamp", "timestamp", "time"),
    "level": ("log.level", "status", "severity"),  # ECS loggers do not nest it
    "event": ("message", "message", "message"),
    "logger": ("log logger", "logger name", ""),
    "request_id": ("http request id", "http request_id", ""),
    "trace_id": ("trace id", "", "logging.googleapis.com/trace"),
    "method": ("http request method", "http method", "httpRequest requestMethod"),
    "route": ("", "http route", ""),
    "path": ("url path", "http url_details path", "httpRequest requestUrl"),
    "status": ("http response status_code", "http status_code", "httpRequest status"),
    "duration_ms": ("event duration", "duration", "httpRequest latency"),
    "user_id": ("user id", "usr id", ""),
    "remote_ip": ("client ip", "network client ip", "httpRequest remoteIp"),
    "host": ("server address", "server address", ""),  # Datadog reads "host" as the machine that wrote the line
    "port": ("server port", "server port", ""),
    "exc_type": ("error type", "error kind", ""),
    "exc_value": ("error message", "error message", ""),
    "exc_text": ("error stack_trace", "error stack", "stack_trace"),
}


def _aggregator_renderers(
    column: int, values: Mapping[str, Callable[[Any], Any]], others: str, constants: dict[str, str]
) -> list[Processor]:
    """Return the processors that rename and order keys as in ``_NAMES``, and write stack traces as text.

    Args:
        column: the aggregator's column in ``_NAMES``.
        values: by key, the function that converts its value.
        others: the name of the nested object for keys that are not renamed; "" puts them at the top level.
        constants: keys and values that are added to each line.
    """
    names = {key: row[column] for key, row in _NAMES.items()}

    def rename(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event |= event.pop("exception", {})
        line: dict[str, Any] = {}
        for key, value in {**dict.fromkeys(names), **event}.items():
            if value is not None:
                *parents, name = (names.get(key) or f"{others} {key}").split()
                place = line
                for parent in parents:
                    place = place.setdefault(parent, {})
                place[name] = values[key](value) if key in values else value
        return line | constants

    return [ExceptionRenderer(_exception_texts), rename, _render_json]


def _exception_texts(exc_info: ExcInfo) -> Any:
    return {
        "exc_type": exc_info[0].__name__,
        "exc_value": str(exc_info[1]),
        "exc_text": "".join(traceback.format_exception(*exc_info)).rstrip(),
    }


def _nanoseconds(milliseconds: float) -> int:
    return round(milliseconds * 1_000_000)


def _trace_name(trace_id: str) -> str:
    """Return Google's name for a trace if ``GOOGLE_CLOUD_PROJECT`` is set, else the id."""
    project = os.environ.get("GOOGLE_CLOUD_PROJECT")
    return f"projects/{project}/traces/{trace_id}" if project else trace_id


_GCP_VALUES = {"level": str.upper, "duration_ms": lambda ms: f"{ms / 1000:.6f}s", "trace_id": _trace_name}
RENDERERS: dict[str, Callable[[], list[Processor]]] = {
    "json": _json_renderers,
    "console": _console_renderers,
    "ecs": partial(_aggregator_renderers, 0, {"duration_ms": _nanoseconds}, "labels", {"ecs.version": "8.11.0"}),
    "datadog": partial(_aggregator_renderers, 1, {"duration_ms": _nanoseconds}, "", {}),
    "gcp": partial(_aggregator_renderers, 2, _GCP_VALUES, "", {}),
}
