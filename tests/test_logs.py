"""The log of a server after all kinds of requests: one JSON object per line, and no secret (FR-051, FR-052)."""

import asyncio
import json
import logging
import os
import re
import secrets
import sqlite3
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog

import server
from server import logs
from server.config import LOG_FORMATS, SQLITE_PREFIX
from tests.conftest import execute, new_postgresql_database
from tests.support.client import PATHS, Client, Response
from tests.support.processes import RUN, SETTINGS, Gate, Process, serving, writes_locked
from tests.support.raw_http import chunk, connect, head

REGISTER, LOGIN, TASKS = PATHS[0].register, PATHS[0].login, PATHS[0].tasks
JSON = {"Content-Type": "application/json"}
SECRET = SETTINGS["BETTER_AUTH_SECRET"]
ATTEMPTS = 9
DATABASE_PASSWORD = "pa55-of-the-database"
PASSWORD = "Unlikely-pa55word-of-alice"
WRONG_PASSWORD = "Unlikely-pa55word-of-bob"
ALICE = {"email": "alice@example.com", "password": PASSWORD}
ENVIRONMENT = {
    **SETTINGS,
    "AUTH_RATE_LIMIT": f"{ATTEMPTS}/minute",
    "DATABASE_TIMEOUT_SECONDS": "1",
    "LOG_LEVEL": "debug",
    "MAX_BODY_BYTES": "2000",
    "TRUSTED_PROXY_HOPS": "1",
}


@dataclass
class Story:
    """The requests to a server, its responses, and what must not be in its log."""

    client: Client
    process: Process
    exchanges: list[tuple[str, str, Response]] = field(default_factory=list)
    secrets: set[str] = field(default_factory=lambda: {SECRET, PASSWORD, WRONG_PASSWORD, DATABASE_PASSWORD})

    async def request(self, method: str, path: str, value: Any = ..., **options: Any) -> Response:
        """Send a request, and note it."""
        self.secrets.add(options.get("token") or SECRET)
        response = await self.client.request(method, path, value, **options)
        self.exchanges.append((method, path, response))
        return response

    async def expect(self, status: int, method: str, path: str, value: Any = ..., **options: Any) -> Any:
        """Send a request, check the status of its response, and return the body."""
        response = await self.request(method, path, value, **options)
        assert response.status == status, response
        return response.body

    def secret_token(self, key: str = SECRET, **claims: Any) -> str:
        """Return a token that must not be in the log; each of its three parts is new."""
        claims = {"sub": secrets.token_hex(8), "exp": int(time.time()) + 3600, "nonce": secrets.token_hex(8), **claims}
        token = jwt.encode(claims, key, "HS256", headers={"kid": secrets.token_hex(16)})
        self.secrets.add(token)
        return token

    def lines_of(self, response: Response) -> list[dict[str, Any]]:
        """Return the log lines of the request with this response."""
        return [line for line in self.process.events() if line["request_id"] == response.headers["X-Request-ID"]]


async def use(story: Story) -> str:
    """Get every successful response, and return a user's token."""
    await story.expect(201, "POST", REGISTER, ALICE)
    token: str = (await story.expect(200, "POST", LOGIN, ALICE))["token"]
    task = (await story.expect(201, "POST", TASKS, {"title": "Buy groceries"}, token=token))["task"]
    for method, path, status in (
        ("GET", f"{PATHS[1].tasks}?page=1&per_page=5", 200),
        ("HEAD", TASKS, 200),
        ("GET", f"{TASKS}/{task['id']}", 200),
        ("DELETE", f"{TASKS}/{task['id']}", 204),
        ("OPTIONS", TASKS, 204),
        ("GET", "/health", 200),
        ("GET", "/health/ready", 200),
    ):
        await story.expect(status, method, path, token=token)
    await story.expect(200, "GET", TASKS, token=token, headers={"X-Request-ID": "chosen-by.the_caller"})
    return token


async def misuse(story: Story, token: str) -> None:
    """Get every response of the 400s."""
    hidden = story.secret_token()
    await story.expect(404, "GET", f"/no/such/path?token={hidden}", token=token)
    await story.expect(404, "GET", f"/no/such/path{'/x' * 2000}", token=token)
    await story.expect(404, "GET", f"{TASKS}/not-a-uuid?access_token={hidden}", token=token)
    await story.expect(405, "PATCH", TASKS, {}, token=token)
    await story.expect(400, "POST", TASKS, {"title": None, "token": hidden}, token=token)
    await story.expect(400, "GET", f"{TASKS}?page={hidden}", token=token)
    await story.expect(422, "POST", TASKS, body=f'{{"token": "{hidden}"'.encode(), headers=JSON, token=token)
    await story.expect(413, "POST", TASKS, body=b" " * 3000, headers=JSON, token=token)
    await story.expect(415, "POST", TASKS, body=b"x", headers={"Content-Type": "text/plain"}, token=token)
    await story.expect(401, "GET", TASKS)
    await story.expect(401, "GET", TASKS, headers={"Authorization": f"Basic {hidden}"})
    await story.expect(401, "GET", TASKS, headers={"Cookie": f"session={hidden}; better-auth.session_token={hidden}"})
    for rejected in (
        story.secret_token("another-secret-of-more-than-32-bytes"),
        story.secret_token(exp=1),
        story.secret_token(nbf=time.time() + 60),
        story.secret_token(),
        f"{story.secret_token()} {hidden}",
        f"{story.secret_token()}.{hidden}",
        hidden.replace(".", ".."),
    ):
        await story.expect(401, "GET", TASKS, token=rejected)
    unknown_user = story.secret_token(sub="00000000-0000-4000-8000-000000000000")
    await story.expect(401, "POST", TASKS, {"title": "x"}, token=unknown_user)
    await story.expect(409, "POST", REGISTER, {**ALICE, "email": "Alice@example.com"})
    await story.expect(400, "POST", REGISTER, {"email": "bob@example.com", "password": PASSWORD * 4})
    await story.expect(422, "POST", REGISTER, body=f'{{"password": "{PASSWORD}"}} {PASSWORD}'.encode(), headers=JSON)
    await story.expect(400, "POST", REGISTER, {"email": PASSWORD, "password": "short"})
    await story.expect(401, "POST", LOGIN, {**ALICE, "password": WRONG_PASSWORD})
    await story.expect(401, "POST", LOGIN, {"email": "unknown@example.com", "password": WRONG_PASSWORD})


async def send_malformed_requests(story: Story) -> None:
    """Send bytes that are not HTTP, or break its rules, each with a secret."""
    hidden = story.secret_token()
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + hidden.encode(),
        f"{hidden}\r\n\r\n".encode(),
        f"GET /health?token={hidden} HTTP/9.9\r\n\r\n".encode(),
        f"GET {TASKS}?token={hidden}\r\nHost: localhost\r\n\r\n".encode(),
        head("GET", TASKS, f"Authorization Bearer {hidden}"),
        head("GET", TASKS, f"Authorization: Bearer\r\n {hidden}"),
        head("GET", TASKS, token="\0" + hidden),
        head("GET", TASKS, f"Content-Length: {hidden}"),
        head("GET", TASKS, f"Host: {hidden}"),
        head("GET", TASKS, f"X-Filler: {'x' * 70000}", token=hidden),
        head("GET", TASKS, f'Cookie: {hidden}\xff\x01;;="', token=hidden + "\xff"),
        head("POST", TASKS, "Transfer-Encoding: chunked", token=hidden) + b"what?\r\n" + hidden.encode() + b"\r\n",
        head("POST", TASKS, f"Transfer-Encoding: {hidden}", token=hidden),
        head("POST", LOGIN, "Content-Length: 100") + f'{{"password": "{PASSWORD}"'.encode(),
        head("POST", LOGIN, "Transfer-Encoding: chunked") + chunk(f'{{"password": "{PASSWORD}"'.encode()),
    ):
        async with connect(story.client) as connection:
            await connection.send(data)
            if connection.writer.can_write_eof():
                connection.writer.write_eof()
            await connection.read_to_end()


async def break_down(story: Story, token: str, database_url: str, gate: Gate | None) -> None:
    """Get every response of the 500s."""
    refuse_some_users(database_url)
    await story.expect(500, "POST", REGISTER, {"email": "refused@example.com", "password": PASSWORD})
    with writes_locked(database_url):
        await story.expect(500, "POST", TASKS, {"title": "x"}, token=token)
    if gate is not None:
        await gate.shut()
        await story.expect(500, "GET", TASKS, token=token)
        await story.expect(500, "POST", LOGIN, ALICE)
        await story.expect(503, "GET", "/health/ready")
        await gate.open()
    await story.expect(200, "GET", TASKS, token=token)


async def reach_limits(story: Story) -> None:
    """Reach the limit of failed logins on an email, and those of an address's registrations and logins."""
    for number in range(ATTEMPTS):
        headers = {"X-Forwarded-For": f"6.6.6.6, 10.0.0.{number}"}
        await story.request("POST", LOGIN, {**ALICE, "password": WRONG_PASSWORD}, headers=headers)
    await story.expect(429, "POST", LOGIN, ALICE, headers=headers)
    for path in (REGISTER, LOGIN):
        for _ in range(ATTEMPTS):
            await story.request("POST", path, {})
        await story.expect(429, "POST", path, {"email": "carol@example.com", "password": PASSWORD})


def refuse_some_users(database_url: str) -> None:
    """Give the table of users a rule that the server does not expect."""
    if database_url.startswith(SQLITE_PREFIX):
        with closing(sqlite3.connect(database_url.removeprefix(SQLITE_PREFIX))) as file:
            file.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON users WHEN NEW.email LIKE 'refused%' "
                "BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
    else:
        execute(database_url, "ALTER TABLE users ADD CONSTRAINT refuse CHECK (email NOT LIKE 'refused%')")


async def live(folder: Path, database_url: str) -> Story:
    """Send every kind of request to a server, stop it, and return the story."""
    async with AsyncExitStack() as stack:
        gate = None
        environment = {**ENVIRONMENT, "DATABASE_URL": database_url}
        if not database_url.startswith(SQLITE_PREFIX):
            gate = await stack.enter_async_context(Gate(database_url, DATABASE_PASSWORD))
            await gate.open()
            environment["DATABASE_URL"] = gate.url
        process, client = await stack.enter_async_context(serving(folder, environment))
        story = Story(client, process)
        token = await use(story)
        await misuse(story, token)
        await send_malformed_requests(story)
        await break_down(story, token, database_url, gate)
        await reach_limits(story)
        assert await process.stop() == 0
    return story


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A server that has ended, on each kind of database."""
    folder = tmp_path_factory.mktemp("story")
    if request.param == "sqlite":
        yield asyncio.run(live(folder, f"sqlite:///{folder}/todo.db"))
    else:
        with new_postgresql_database(request.getfixturevalue("postgresql_server")) as url:
            yield asyncio.run(live(folder, url))


def test_every_line_is_a_json_object_of_one_form(story: Story) -> None:
    assert story.process.stdout.endswith("\n")
    assert story.process.stderr == ""
    for line in story.process.events():
        assert list(line)[:4] == ["event", "level", "timestamp", "request_id"]
        assert re.fullmatch("[a-z_]+", line["event"])
        assert line["level"] in ("debug", "info", "warning", "error")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
        assert line["request_id"] is None or isinstance(line["request_id"], str)
    (start,) = story.process.events("server_started")
    assert start["version"] == server.__version__


def test_every_request_has_one_line_that_describes_it(story: Story) -> None:
    requests = story.process.events("request")
    lines = {line["request_id"]: line for line in requests}
    assert len(lines) == len(requests)
    assert "chosen-by.the_caller" in lines
    (user_id,) = {
        response.body["user"]["id"] for _, path, response in story.exchanges if path == LOGIN and response.status == 200
    }
    for method, target, response in story.exchanges:
        line = lines[response.headers["X-Request-ID"]]
        path = target.partition("?")[0][:2000]
        assert (line["method"], line["path"], line["status"]) == (method, path, response.status)
        assert line["level"] == "info"
        assert 0 < line["duration_ms"] < 30_000
        if path.startswith("/no/such/path"):
            assert line["route"] is None
        else:
            assert line["route"] == re.sub(f"^({TASKS}|{PATHS[1].tasks})/.*", r"\1/{id}", path)
        assert set(line) == {
            *("event", "level", "timestamp", "request_id"),
            *("method", "route", "path", "status", "duration_ms", "user_id", "remote_ip"),
        }
        if path.startswith((TASKS, PATHS[1].tasks)) and response.status not in (401, 405) and method != "OPTIONS":
            assert line["user_id"] == user_id
        elif response.status != 401:
            assert line["user_id"] is None
    addresses = {"127.0.0.1", *(f"10.0.0.{number}" for number in range(ATTEMPTS))}  # that the trusted proxy saw
    assert {line["remote_ip"] for line in requests} == addresses


@pytest.mark.requirement("FR-051", "FR-052", "EC-4", "TM-F13")
def test_only_a_5xx_has_a_stack_trace_and_only_in_the_log(story: Story) -> None:
    failures = Counter[tuple[str, str]]()
    for _, _, response in story.exchanges:
        lines = story.lines_of(response)
        traced = [line for line in lines if "exception" in line]
        assert len(traced) == (response.status >= 500)
        for line in traced:
            failures[line["event"], response.body["error"]] += 1
            (request,) = [line for line in lines if line["event"] == "request"]
            assert (line["level"], line["method"], line["route"]) == ("error", request["method"], request["route"])
            frames = [frame for exception in line["exception"] for frame in exception["frames"]]
            assert frames
            assert all({"filename", "lineno", "name"} <= set(frame) for frame in frames)
            assert all(exception["exc_type"] for exception in line["exception"])
    assert failures.keys() == {
        ("internal_error", "Internal server error"),
        ("service_unavailable", "Service temporarily unavailable"),
    }
    assert len([line for line in story.process.events() if "exception" in line]) == failures.total()


@pytest.mark.requirement("EC-3")
def test_security_events_have_their_reason(story: Story) -> None:
    def reasons(event: str) -> set[str]:
        lines = story.process.events(event)
        assert all(line["level"] == "warning" and line["request_id"] for line in lines)
        return {line["reason"] for line in lines}

    assert reasons("token_rejected") == {
        *("missing", "not_bearer", "malformed", "signature", "expired"),
        *("not_yet_valid", "no_user_id", "unknown_user"),
    }
    assert reasons("login_failed") == {"unknown_email", "wrong_password"}
    assert reasons("rate_limited") == {"address", "email"}
    for _, path, response in story.exchanges:
        events = [line["event"] for line in story.lines_of(response)]
        assert events.count("rate_limited") == (response.status == 429)
        assert events.count("login_failed") == (response.status == 401 and path == LOGIN)
        assert events.count("token_rejected") == (response.status == 401 and path != LOGIN)


def test_no_secret_is_in_the_log(story: Story) -> None:
    pieces = {secret[start : start + 12] for secret in story.secrets for start in range(0, len(secret) - 11, 12)}
    found = {piece for piece in {*pieces, "$2b$", "postgresql://", "sqlite:///"} if piece in story.process.stdout}
    assert found == set()


@pytest.mark.usefixtures("io_loop")
async def test_console_format_has_short_lines_without_colors(tmp_path: Path) -> None:
    async with serving(tmp_path, {**SETTINGS, "LOG_FORMAT": "console"}) as (process, client):
        assert (await client.request("GET", "/health")).status == 200
        async with connect(client) as connection:
            await connection.send(b"GET /\xc2\x9b31m HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await connection.read_head()).startswith(b"HTTP/1.1 400 ")
        assert await process.stop() == 0
    lines = process.stdout.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d \[info\] \w+\b", line) and len(line) < 140 for line in lines)
    assert any("path=/health status=200" in line for line in lines)
    assert any(r"path=/Â\u009b31m" in line for line in lines)
    assert process.stderr == ""


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


TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.usefixtures("io_loop")
async def test_every_line_of_a_request_has_its_trace_id(tmp_path: Path) -> None:
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
    async with serving(tmp_path, SETTINGS) as (process, client):
        for traceparent in (*traced, *untraced):
            assert (await client.request("GET", TASKS, headers={"traceparent": traceparent})).status == 401
        assert await process.stop() == 0
    for event in ("token_rejected", "request"):
        trace_ids = [line.get("trace_id") for line in process.events(event)]
        assert trace_ids == [TRACE] * len(traced) + [None] * len(untraced)


@contextmanager
def configured(level: str = "info", line_format: str = "json") -> Iterator[None]:
    """Set up logging in this process as the server does, with the keys of a request, and restore everything."""
    root, names = logging.getLogger(), ("alembic", "tornado.general")
    handlers, root_level, levels = root.handlers[:], root.level, [logging.getLogger(name).level for name in names]
    ours = structlog.get_config()
    logs.configure(level, line_format)
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
        for name, its_level in zip(names, levels, strict=True):
            logging.getLogger(name).setLevel(its_level)


def only_line(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what was written, which is one line on standard output."""
    captured = capfd.readouterr()
    assert captured.err == ""
    assert captured.out.count("\n") == 1
    line: dict[str, Any] = json.loads(captured.out)
    return line


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


@pytest.mark.parametrize("name", ["tornado.application", "aiopg"])
def test_records_of_other_libraries_have_the_same_form(capfd: pytest.CaptureFixture[str], name: str) -> None:
    with configured():
        logging.getLogger(name).warning("%s\nlines", "two")
    line = only_line(capfd)
    assert line.pop("timestamp").endswith("Z")
    expected = {"event": "two\nlines", "level": "warning", "logger": name}
    assert line == {**expected, "request_id": "the-request", "trace_id": TRACE}


def test_exception_of_another_library_is_logged_as_data(capfd: pytest.CaptureFixture[str]) -> None:
    with configured():
        log_exception(logging.getLogger("asyncio"))
    (exception,) = only_line(capfd)["exception"]
    assert exception["exc_type"] == "ValueError"
    assert "invalid literal" in exception["exc_value"]
    assert exception["frames"][-1]["name"] == "log_exception"


def test_python_warning_is_logged(capfd: pytest.CaptureFixture[str]) -> None:
    with configured(), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("mind the gap", stacklevel=1)
    line = only_line(capfd)
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "mind the gap" in line["event"]


@pytest.mark.parametrize("value", ["\ud800", "\u2028\x85\x00\n\r", 2**70, float("nan"), b"\xff", object(), {1: {2}}])
def test_any_value_is_logged_as_json(capfd: pytest.CaptureFixture[str], value: object) -> None:
    with configured():
        structlog.get_logger().info("odd", value=value)
    assert only_line(capfd)["event"] == "odd"


def test_levels_below_the_threshold_are_not_written(capfd: pytest.CaptureFixture[str]) -> None:
    with configured("error"):
        structlog.get_logger().warning("ours")
        logging.getLogger("tornado.application").warning("theirs")
        structlog.get_logger().error("this one")
    assert only_line(capfd)["event"] == "this one"


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
    line = only_line(capfd)
    assert set(AGGREGATORS[line_format].split()) <= paths_in(line)
    assert next(iter(line)) in ("@timestamp", "timestamp", "time")
    assert line["message"] == "internal_error"
    assert not line.keys() & {"level", "reason"}
    assert line_format == "gcp" or "host" not in line
    written = json.dumps(line)
    assert "Traceback (most recent call last):" in written
    assert len(re.findall(rf'"(?:projects/my-projectid/traces/)?{TRACE}"', written)) == 1
    assert re.search(r"3500000\b|0\.003500s", written)
