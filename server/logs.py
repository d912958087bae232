"""Log lines: our own events and every other library's records, as one JSON object a line on standard output."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO, cast

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer

from server import clock
from server.log_writer import LineWriter

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger


FLUSH_SECONDS = 0.5  # that the end of the process waits for the reader of the log

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)  # of the request that is handled
_writer = LineWriter()


def configure(level: str, line_format: str) -> None:
    """Set up structlog and the standard library's logging; call it once, before the first line.

    Args:
        level: the least severe level that is written, a name of the ``logging`` module in lower case.
        line_format: ``json``, or ``console`` for people.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        _name_request,
        structlog.processors.add_log_level,
        _stamp,
    ]
    renderers = RENDERERS[line_format]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: _writer,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(cast("TextIO", _writer))
    handler.terminator = ""
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    # Below warnings other libraries quote what they handle: headers with tokens in them, statements with hashes.
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    logging.captureWarnings(capture=True)
    if not _writer.is_alive():
        _writer.start()


def flush(seconds: float) -> None:
    """Wait at most this many seconds until every line is written, or less if the reader takes none."""
    _writer.wait(seconds)


def _name_request(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event.setdefault("request_id", request_id.get())
    return event


def _stamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Tell the time always in the same form: structlog's own leaves the fraction out when it is zero."""
    event["timestamp"] = clock.format_time(clock.now())
    return event


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event, default=repr).decode()
    except TypeError:  # a lone surrogate in somebody's text, or a number past 64 bits: the standard library escapes it
        return json.dumps(event, default=repr)


# Stack traces without the frames' variables: those hold passwords and tokens.
RENDERERS: dict[str, list[structlog.typing.Processor]] = {
    "json": [structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)), _render_json],
    "console": [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)],
}
