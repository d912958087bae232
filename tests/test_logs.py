"""The log: one JSON object per line, which describes a request and has no secret, or the format of an aggregator."""

import json
import logging
import os
import re
import secrets
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog
from sqlalchemy import insert

from server import logs
from server.config import LOG_FORMATS, LOG_LEVELS
from server.database import QueryError
from server.database.tables import users
from server.services import Services
from tests.conftest import SECRET, on_one_database
from tests.support.client import PASSWORD, PATHS, Client, Person
from tests.support.processes import RUN, SETTINGS
from tests.support.raw_http import chunk, connect, head, with_body

REGISTER, LOGIN, TASKS = PATHS[0].register, PATHS[0].login, PATHS[0].tasks
JSON = "Content-Type: application/json"
DATABASE_PASSWORD = "pa55-of-the-database"
MESSAGES = {"internal_error": "Internal server error", "service_unavailable": "Service temporarily unavailable"}
without_tables = pytest.mark.settings(DATABASE_URL="sqlite:///without-tables.db")
unavailable = pytest.mark.settings(DATABASE_URL=f"postgresql://user:{DATABASE_PASSWORD}@127.0.0.1:1/todo")
TRACE = "0af7651916cd43dd8448eb211c80319c"


@contextmanager
def configured(level: str = "info", line_format: str = "json") -> Iterator[None]:
    """Set up logging in this process as the server does, with the keys of a request, and restore everything."""
    root = logging.getLogger()
    handlers, root_level = root.handlers[:], root.level
    ours = structlog.get_config()
    logs.configure(level, line_format)
    structlog.configure(cache_logger_on_first_use=False)  # the server's loggers must not keep this configuration
    keys = logs.request_keys.set({"request_id": "the-request", "trace_id": TRACE})
    try:
        yield
    finally:
        logs.request_keys.reset(keys)
        logs.flush(10)
        logging.captureWarnings(capture=False)
        structlog.configure(**ours)
        root.handlers[:] = handlers
        root.setLevel(root_level)


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the lines on standard output; there are none on standard error."""
    captured = capfd.readouterr()
    assert captured.err == ""
    return [json.loads(line) for line in captured.out.split("\n") if line]


@on_one_database
@pytest.mark.parametrize(
    ("method", "target", "route", "status"),
    [
        ("GET", f"{TASKS}?page=1", TASKS, 200),
        ("GET", f"{TASKS}/not-a-uuid", f"{TASKS}/{{id}}", 404),
        ("PATCH", TASKS, TASKS, 405),
        ("HEAD", "/health", "/health", 200),
        ("GET", "/no/such/path" + "/x" * 2000, None, 404),
    ],
)
async def test_every_request_has_one_line_that_describes_it(
    alice: Person, capfd: pytest.CaptureFixture[str], *, method: str, target: str, route: str | None, status: int
) -> None:
    with configured():
        response = await alice.request(method, target)
    (line,) = lines(capfd)
    assert list(line)[:4] == ["event", "level", "timestamp", "request_id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert 0 < line.pop("duration_ms") < 30_000
    assert line == {
        "event": "request",
        "level": "info",
        "request_id": response.headers["X-Request-ID"],
        "method": method,
        "route": route,
        "path": target.partition("?")[0][:2000],
        "status": status,
        "user_id": alice.id if target.startswith(TASKS) and status != 405 else None,
        "remote_ip": "127.0.0.1",
    }


@on_one_database
async def test_every_line_of_a_request_has_its_ids(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    # the examples of W3C Trace Context, sections 3.2 and 4
    traced = [f"00-{TRACE}-b7ad6b7169203331-01", f"01-{TRACE}-b7ad6b7169203331-01-what-may-come"]
    untraced = [
        f"00-{TRACE}-b7ad6b7169203331-01-more",
        f"00-{TRACE}-b7ad6b7169203331-01.",
        f"ff-{TRACE}-b7ad6b7169203331-01",
        f"00-{TRACE.upper()}-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-01",
        "",
    ]
    for traceparent in (*traced, *untraced):
        with configured():
            response = await client.request("GET", TASKS, headers={"traceparent": traceparent})
        rejected, request = lines(capfd)
        assert (rejected["event"], rejected["level"], request["event"]) == ("token_rejected", "warning", "request")
        for line in (rejected, request):
            assert line["request_id"] == response.headers["X-Request-ID"]
            assert line.get("trace_id") == (TRACE if traceparent in traced else None)


@pytest.mark.requirement("FR-051", "FR-052", "EC-4", "TM-F13")
@on_one_database
@pytest.mark.parametrize(
    ("method", "path", "status", "event"),
    [
        pytest.param("POST", LOGIN, 500, "internal_error", marks=without_tables),
        pytest.param("POST", LOGIN, 500, "service_unavailable", marks=unavailable),
        pytest.param("GET", "/health/ready", 503, "service_unavailable", marks=unavailable),
    ],
)
async def test_5xx_has_a_stack_trace_without_secrets_and_only_in_the_log(
    client: Client, capfd: pytest.CaptureFixture[str], *, method: str, path: str, status: int, event: str
) -> None:
    with configured("debug"):
        response = await client.request(method, path, {"email": "alice@example.com", "password": PASSWORD})
    assert response.outcome == (status, MESSAGES[event])
    failure, request = lines(capfd)
    assert [failure[key] for key in ("event", "level", "method", "route")] == [event, "error", method, path]
    assert failure["request_id"] == request["request_id"] == response.headers["X-Request-ID"]
    assert failure["exception"][0]["exc_type"]
    assert {"filename", "lineno", "name"} <= set(failure["exception"][0]["frames"][-1])
    assert "exception" not in request
    assert not re.search(f"{PASSWORD}|{DATABASE_PASSWORD}|{SECRET}|postgresql://|sqlite:///", str(failure))


async def test_failed_statement_is_logged_without_its_values(
    services: Services, capfd: pytest.CaptureFixture[str]
) -> None:
    incomplete = insert(users).values(id=str(uuid4()), password_hash="the-hash")
    with configured():
        try:
            await services.database.for_request().fetch_all(incomplete, {})
        except QueryError:
            structlog.get_logger().exception("internal_error")
    (line,) = lines(capfd)
    assert line["exception"][0]["exc_type"] == "QueryError"
    assert "the-hash" not in str(line)


@on_one_database
async def test_no_secret_of_a_request_is_in_the_log(alice: Person, capfd: pytest.CaptureFixture[str]) -> None:
    hidden = secrets.token_hex(18)
    password = f'{{"email": "{alice.email}", "password": "{hidden}"'.encode()
    credentials = json.dumps({"email": alice.email, "password": PASSWORD}).encode()
    requests = (
        f"{hidden}\r\n\r\n".encode(),
        f"GET /health?token={hidden} HTTP/9.9\r\n\r\n".encode(),
        head("GET", f"http://me:{hidden}@localhost{TASKS}?token={hidden}"),
        head("GET", f"{TASKS}?page={hidden}", token=alice.token),
        head("GET", TASKS, token=hidden),
        head("GET", TASKS, token="\0" + hidden),
        head("GET", TASKS, f"Authorization: Basic {hidden}", f"Cookie: session={hidden}"),
        head("GET", TASKS, f"Authorization Bearer {hidden}"),
        head("GET", TASKS, f"Content-Length: {hidden}"),
        head("GET", TASKS, f"Host: {hidden}"),
        head("GET", TASKS, f"X-Filler: {'x' * 70000}", token=hidden),
        head("POST", TASKS, f"Transfer-Encoding: {hidden}"),
        head("POST", LOGIN, "Transfer-Encoding: chunked") + f"{hidden}\r\n".encode(),
        head("POST", LOGIN, "Transfer-Encoding: chunked") + chunk(password),
        with_body("POST", LOGIN, credentials, JSON),
        with_body("POST", LOGIN, password, JSON),
        with_body("POST", LOGIN, password + b"}", JSON),
        with_body("POST", REGISTER, password.replace(b"@", b"") + b"}", JSON),
    )
    with configured("debug"):
        for request in requests:
            async with connect(alice.client) as connection:
                await connection.send(request)
                connection.writer.write_eof()
                await connection.read_to_end()
    events = lines(capfd)
    assert len([line for line in events if line["event"] == "request"]) == len(requests)
    pieces = [*re.findall(".{12}", hidden + alice.token), PASSWORD, "$2b$"]
    assert not [piece for piece in pieces if piece in str(events)]


def test_console_format_has_short_lines(capfd: pytest.CaptureFixture[str]) -> None:
    request = {"method": "GET", "route": "/tasks/{id}", "path": "/tasks/\x9b1\n", "status": 200, "user_id": "f0e9" * 8}
    with configured(line_format="console"):
        structlog.get_logger().info("request", **request, reason=None)
    shown = r"request_id=the-requ trace_id=0af76519 method=GET path=/tasks/\u009b1\u000a status=200 user_id=f0e9f0e9"
    assert re.fullmatch(rf"\d\d:\d\d:\d\d \[info\] request {re.escape(shown)}\n", capfd.readouterr().out)


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_console_format_has_colors_on_a_terminal(tmp_path: Path, no_color: str, *, colored: bool) -> None:
    terminal, standard_output = os.openpty()
    environment = {**SETTINGS, "LOG_FORMAT": "console", "NO_COLOR": no_color}
    subprocess.run([*RUN, "migrate"], cwd=tmp_path, env=environment, stdout=standard_output, check=True)
    written = os.read(terminal, 65536).decode()
    os.close(terminal)
    os.close(standard_output)
    assert "schema_migrated" in written
    assert ("\x1b[" in written) is colored


def log_exception(logger: Any, **values: Any) -> None:
    """Log an exception, with a variable in its frame that no log should show."""
    secret = "a-local-" + "variable"
    try:
        int(secret[:0])
    except ValueError:
        logger.exception("internal_error", **values)


@pytest.mark.parametrize("line_format", LOG_FORMATS)
def test_no_format_shows_variables_or_control_characters(capfd: pytest.CaptureFixture[str], line_format: str) -> None:
    with configured(line_format=line_format):
        log_exception(structlog.get_logger())
        logging.getLogger("asyncio").warning("two\nlines \x00\x1b\x7f\x80\x9b\x9f\xa0é")
    written = capfd.readouterr().out
    assert "ValueError" in written
    assert "a-local-variable" not in written
    assert r"\u001b\u007f\u0080\u009b\u009f" + "\xa0é" in written
    assert line_format == "console" or all(json.loads(line) for line in written.splitlines())


def test_record_of_another_library_has_the_same_form(capfd: pytest.CaptureFixture[str]) -> None:
    with configured():
        log_exception(logging.getLogger("asyncio"))
    (line,) = lines(capfd)
    assert line.pop("timestamp").endswith("Z")
    (exception,) = line.pop("exception")
    assert exception["exc_type"] == "ValueError"
    assert "invalid literal" in exception["exc_value"]
    assert exception["frames"][-1]["name"] == "log_exception"
    expected = {"event": "internal_error", "level": "error", "logger": "asyncio"}
    assert line == {**expected, "request_id": "the-request", "trace_id": TRACE}


def test_python_warning_is_logged(capfd: pytest.CaptureFixture[str]) -> None:
    with configured(), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("mind the gap", stacklevel=1)
    (line,) = lines(capfd)
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "mind the gap" in line["event"]


@pytest.mark.parametrize("value", ["\ud800", "\u2028\x85\x00\n\r", 2**70, float("nan"), b"\xff", object(), {1: {2}}])
def test_any_value_is_logged_as_json(capfd: pytest.CaptureFixture[str], value: object) -> None:
    with configured():
        structlog.get_logger().info("odd", value=value)
    (line,) = lines(capfd)
    assert line["event"] == "odd"


@pytest.mark.parametrize(
    ("threshold", "ours", "of_libraries"),
    [("debug", LOG_LEVELS, ("warning", "error", "critical")), ("error", ("error", "critical"), ("error", "critical"))],
)
def test_levels_below_the_threshold_are_not_written(
    capfd: pytest.CaptureFixture[str], threshold: str, ours: tuple[str, ...], of_libraries: tuple[str, ...]
) -> None:
    with configured(threshold):
        for logger in (structlog.get_logger(), logging.getLogger("tornado.application")):
            for level in LOG_LEVELS:
                getattr(logger, level)("event")
    assert [line["level"] for line in lines(capfd)] == [*ours, *of_libraries]


# The paths to the values in the examples of each aggregator's documentation, and which of them are integers
AGGREGATORS = {
    # elastic.co/docs/reference/ecs/logging/python/installation, elastic.co/docs/reference/ecs/ecs-field-reference
    "ecs": """
        @timestamp log.level message ecs.version http:request:method http:request:id http:response:status_code=int
        url:path client:ip user:id event:duration=int trace:id error:type error:message error:stack_trace
    """,
    # docs.datadoghq.com/standard-attributes, docs.datadoghq.com/logs/log_configuration/pipelines
    "datadog": """
        timestamp status message duration=int trace_id usr:id http:method http:status_code=int http:request_id
        http:url_details:path network:client:ip error:kind error:message error:stack
    """,
    # cloud.google.com/logging/docs/structured-logging, cloud.google.com/error-reporting/docs/formatting-error-messages
    "gcp": """
        severity message time logging.googleapis.com/trace stack_trace httpRequest:requestMethod httpRequest:requestUrl
        httpRequest:status=int httpRequest:latency httpRequest:remoteIp
    """,
}


def paths_in(value: Any, path: str = "") -> set[str]:
    """Return the path to each value of a line."""
    if isinstance(value, dict):
        return {found for name, part in value.items() for found in paths_in(part, f"{path}:{name}" if path else name)}
    return {path if isinstance(value, str) else f"{path}={type(value).__name__}"}


@pytest.mark.parametrize("line_format", AGGREGATORS)
def test_aggregator_finds_its_names(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line_format: str
) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-projectid")
    request = {"method": "GET", "route": "/api/tasks", "path": "/api/tasks", "status": 500, "duration_ms": 3.5}
    request |= {"user_id": "f0e9", "remote_ip": "127.0.0.1", "host": "localhost", "reason": None}
    with configured(line_format=line_format):
        log_exception(structlog.get_logger(), **request)
    (line,) = lines(capfd)
    assert set(AGGREGATORS[line_format].split()) <= paths_in(line)
    assert next(iter(line)) in ("@timestamp", "timestamp", "time")
    assert line["message"] == "internal_error"
    assert not line.keys() & {"level", "reason"}
    assert line_format == "gcp" or "host" not in line
    written = json.dumps(line)
    assert "Traceback (most recent call last):" in written
    assert len(re.findall(rf'"(?:projects/my-projectid/traces/)?{TRACE}"', written)) == 1
    assert re.search(r"3500000\b|0\.003500s", written)
