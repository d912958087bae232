"""The log of a real server after all kinds of requests: whole, in one form, and without a secret (FR-051, FR-052)."""

from __future__ import annotations

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
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jwt
import psycopg2
import pytest
import structlog

import server
from server import logs
from server.config import LOG_FORMATS, SQLITE_PREFIX
from tests.conftest import ORIGIN, SECRET, new_postgresql_database
from tests.support.client import PATHS
from tests.support.processes import RUN, Gate, serving, writes_locked
from tests.support.raw_http import chunk, connect, head

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.client import Client, Response
    from tests.support.processes import Process

REGISTER, LOGIN, TASKS = PATHS[0].register, PATHS[0].login, PATHS[0].tasks
JSON = {"Content-Type": "application/json"}
ATTEMPTS = 9
DATABASE_PASSWORD = "pa55-of-the-database"
PASSWORD = "Unlikely-pa55word-of-alice"
WRONG_PASSWORD = "Unlikely-pa55word-of-nobody"
ENVIRONMENT = {
    "BETTER_AUTH_SECRET": SECRET,
    "FRONTEND_URL": ORIGIN,
    "BCRYPT_ROUNDS": "4",
    "AUTH_RATE_LIMIT": f"{ATTEMPTS}/minute",
    "DATABASE_TIMEOUT_SECONDS": "1",
    "MAX_BODY_BYTES": "2000",
    "TRUSTED_PROXY_HOPS": "1",
}


def token(key: str = SECRET, **claims: Any) -> str:
    """Return a token that has never been in the test before, each of its three parts."""
    claims = {"sub": secrets.token_hex(8), "exp": int(time.time()) + 3600, "nonce": secrets.token_hex(8), **claims}
    return jwt.encode(claims, key, "HS256", headers={"kid": secrets.token_hex(16)})


@dataclass
class Story:
    """What was sent to a server and answered, and what must not be in its log."""

    client: Client
    process: Process
    exchanges: list[tuple[str, str, Response]] = field(default_factory=list)
    secrets: set[str] = field(default_factory=lambda: {SECRET, PASSWORD, WRONG_PASSWORD, DATABASE_PASSWORD})

    async def request(
        self,
        method: str,
        path: str,
        value: Any = ...,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Response:
        """Send a request, and note it."""
        if token is not None:
            self.secrets.add(token)
        response: Response = await self.client.request(method, path, value, token=token, headers=headers, body=body)
        self.exchanges.append((method, path, response))
        return response

    async def expect(self, status: int, method: str, path: str, value: Any = ..., **options: Any) -> Response:
        """Send a request that is answered with this status."""
        response = await self.request(method, path, value, **options)
        assert response.status == status, response
        return response

    def secret_token(self, key: str = SECRET, **claims: Any) -> str:
        """Return a token that must not show."""
        made = token(key, **claims)
        self.secrets.add(made)
        return made

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.process.events()

    def of_request(self, response: Response) -> list[dict[str, Any]]:
        """Return the log lines of the request with this response."""
        return [line for line in self.events if line["request_id"] == response.headers["X-Request-ID"]]


async def use(story: Story) -> str:
    """Use the server as it is meant, and return a user's token."""
    credentials = {"email": "alice@example.com", "password": PASSWORD}
    await story.expect(201, "POST", REGISTER, credentials)
    issued: str = (await story.expect(200, "POST", LOGIN, credentials)).body["token"]
    task = (await story.expect(201, "POST", TASKS, {"title": "Buy groceries"}, token=issued)).body["task"]
    for method, path, status in (
        ("GET", TASKS, 200),
        ("GET", f"{PATHS[1].tasks}?page=1&per_page=5", 200),
        ("HEAD", TASKS, 200),
        ("GET", f"{TASKS}/{task['id']}", 200),
        ("DELETE", f"{TASKS}/{task['id']}", 204),
        ("OPTIONS", TASKS, 204),
        ("GET", "/health", 200),
        ("GET", "/health/ready", 200),
    ):
        await story.expect(status, method, path, token=issued)
    await story.expect(200, "GET", TASKS, token=issued, headers={"X-Request-ID": "chosen-by.the_caller"})
    return issued


async def misuse(story: Story, issued: str) -> None:
    """Get every response of the 400s."""
    hidden = story.secret_token()
    await story.expect(404, "GET", f"/no/such/path?token={hidden}", token=issued)
    await story.expect(404, "GET", f"/no/such/path{'/x' * 2000}", token=issued)
    await story.expect(404, "GET", f"{TASKS}/no-uuid?access_token={hidden}", token=issued)
    await story.expect(405, "PATCH", TASKS, {}, token=issued)
    await story.expect(400, "POST", TASKS, {"title": None, "token": hidden}, token=issued)
    await story.expect(400, "GET", f"{TASKS}?page={hidden}", token=issued)
    await story.expect(422, "POST", TASKS, body=f'{{"token": "{hidden}"'.encode(), headers=JSON, token=issued)
    await story.expect(413, "POST", TASKS, body=b" " * 3000, headers=JSON, token=issued)
    await story.expect(415, "POST", TASKS, body=b"x", headers={"Content-Type": "text/plain"}, token=issued)
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
    await story.expect(401, "POST", TASKS, {"title": "x"}, token=story.secret_token(sub=str(secrets.token_hex(16))))
    stranger = "00000000-0000-4000-8000-000000000000"
    await story.expect(401, "POST", TASKS, {"title": "x"}, token=story.secret_token(sub=stranger))
    await story.expect(409, "POST", REGISTER, {"email": "Alice@example.com", "password": PASSWORD})
    await story.expect(400, "POST", REGISTER, {"email": "bob@example.com", "password": PASSWORD * 4})
    await story.expect(422, "POST", REGISTER, body=f'{{"password": "{PASSWORD}"}} {PASSWORD}'.encode(), headers=JSON)
    await story.expect(400, "POST", REGISTER, {"email": PASSWORD, "password": "short"})
    await story.expect(401, "POST", LOGIN, {"email": "alice@example.com", "password": WRONG_PASSWORD})
    await story.expect(401, "POST", LOGIN, {"email": "nobody@example.com", "password": WRONG_PASSWORD})


async def send_bytes(story: Story) -> None:
    """Send what is no HTTP, or not what HTTP means it to be, each with a secret in it."""
    hidden = story.secret_token()
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + hidden.encode(),
        f"{hidden}\r\n\r\n".encode(),
        f"GET /health?token={hidden} HTTP/9.9\r\n\r\n".encode(),
        f"GET {TASKS}?token={hidden}\r\nHost: localhost\r\n\r\n".encode(),
        f"GET {TASKS} HTTP/1.1\r\nHost: localhost\r\nAuthorization Bearer {hidden}\r\n\r\n".encode(),
        f"GET {TASKS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer\r\n {hidden}\r\n\r\n".encode(),
        f"GET {TASKS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \0{hidden}\r\n\r\n".encode(),
        f"GET {TASKS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {hidden}\r\n\r\n".encode(),
        f"GET {TASKS} HTTP/1.1\r\nHost: localhost\r\nHost: {hidden}\r\n\r\n".encode(),
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


async def break_down(story: Story, issued: str, database_url: str, gate: Gate | None) -> None:
    """Get every response of the 500s."""
    refuse_some_users(database_url)
    await story.expect(500, "POST", REGISTER, {"email": "refused@example.com", "password": PASSWORD})
    with writes_locked(database_url):
        await story.expect(500, "POST", TASKS, {"title": "x"}, token=issued)
    if gate is not None:
        await gate.shut()
        await story.expect(500, "GET", TASKS, token=issued)
        await story.expect(500, "POST", LOGIN, {"email": "alice@example.com", "password": PASSWORD})
        await story.expect(503, "GET", "/health/ready")
        await gate.open()
    await story.expect(200, "GET", TASKS, token=issued)


async def insist(story: Story) -> None:
    """Try until every limit is reached: an address's to register and to log in, and an email's."""
    for number in range(ATTEMPTS):
        headers = {"X-Forwarded-For": f"6.6.6.6, 10.0.0.{number}"}
        credentials = {"email": "alice@example.com", "password": WRONG_PASSWORD}
        await story.request("POST", LOGIN, credentials, headers=headers)
    await story.expect(429, "POST", LOGIN, {"email": "alice@example.com", "password": PASSWORD}, headers=headers)
    for path in (REGISTER, LOGIN):
        for _ in range(ATTEMPTS):
            await story.request("POST", path, {})
        await story.expect(429, "POST", path, {"email": "carol@example.com", "password": PASSWORD})


def refuse_some_users(database_url: str) -> None:
    """Give the table of users a rule that the code knows nothing of."""
    if database_url.startswith(SQLITE_PREFIX):
        with closing(sqlite3.connect(database_url.removeprefix(SQLITE_PREFIX))) as file:
            file.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON users WHEN NEW.email LIKE 'refused%' "
                "BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
        return
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE users ADD CONSTRAINT refuse CHECK (email NOT LIKE 'refused%')")


async def live(folder: Path, database_url: str, *, behind_gate: bool) -> Story:
    """Start a server, live its whole life, and return the story."""
    async with AsyncExitStack() as stack:
        gate = await stack.enter_async_context(Gate(database_url, DATABASE_PASSWORD)) if behind_gate else None
        if gate is not None:
            await gate.open()
        environment = {**ENVIRONMENT, "DATABASE_URL": gate.url if gate else database_url}
        process, client = await stack.enter_async_context(serving(folder, environment))
        story = Story(client, process)
        issued = await use(story)
        await misuse(story, issued)
        await send_bytes(story)
        await break_down(story, issued, database_url, gate)
        await insist(story)
        assert await process.stop() == 0
    return story


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The life of a server, on each kind of database."""
    folder = tmp_path_factory.mktemp("story")
    if request.param == "sqlite":
        yield asyncio.run(live(folder, f"sqlite:///{folder}/todo.db", behind_gate=False))
    else:
        with new_postgresql_database(request.getfixturevalue("postgresql_server")) as url:
            yield asyncio.run(live(folder, url, behind_gate=True))


def assert_one_form(story: Story) -> None:
    lines = story.process.stdout.split("\n")
    assert lines.pop() == ""
    for line in lines:
        event = json.loads(line)
        assert event["event"]
        assert isinstance(event["event"], str)
        assert event["level"] in ("debug", "info", "warning", "error")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["timestamp"])
        assert event["request_id"] is None or isinstance(event["request_id"], str)
    assert story.process.stderr == ""


def assert_no_secret(story: Story) -> None:
    written = story.process.stdout + story.process.stderr
    for secret in story.secrets:
        for start in range(0, len(secret) - 11, 12):
            assert secret[start : start + 12] not in written
    assert "$2b$" not in written
    assert "postgresql://" not in written
    assert "sqlite:///" not in written


def test_every_line_is_a_json_object_of_one_form(story: Story) -> None:
    assert_one_form(story)


def test_every_request_has_one_line_that_describes_it(story: Story) -> None:
    count = Counter(line["request_id"] for line in story.process.events("request"))
    assert set(count.values()) == {1}
    lines = {line["request_id"]: line for line in story.process.events("request")}
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


def test_the_address_is_the_one_that_the_trusted_proxy_saw(story: Story) -> None:
    addresses = {line["remote_ip"] for line in story.process.events("request")}
    assert addresses == {"127.0.0.1", *(f"10.0.0.{number}" for number in range(ATTEMPTS))}


def test_a_request_id_of_the_callers_is_kept(story: Story) -> None:
    (line,) = [line for line in story.events if line["request_id"] == "chosen-by.the_caller"]
    assert line["event"] == "request"


@pytest.mark.requirement("FR-051", "EC-4", "TM-F13")
def test_a_5xx_has_its_stack_trace_and_nothing_else_has_one(story: Story) -> None:
    failures = Counter[str]()
    for _, _, response in story.exchanges:
        traced = [line for line in story.of_request(response) if "exception" in line]
        assert len(traced) == (response.status >= 500)
        for line in traced:
            failures[line["event"]] += 1
            assert line["level"] == "error"
            (request,) = [line for line in story.of_request(response) if line["event"] == "request"]
            assert (line["method"], line["route"]) == (request["method"], request["route"])
            for exception in line["exception"]:
                assert exception["exc_type"]
                assert all({"filename", "lineno", "name"} <= set(frame) for frame in exception["frames"])
            assert any(exception["frames"] for exception in line["exception"])
    assert failures["internal_error"] == 1
    assert failures["service_unavailable"] >= 1
    assert {line["request_id"] for line in story.events if "exception" in line} <= {
        response.headers["X-Request-ID"] for _, _, response in story.exchanges
    }


@pytest.mark.requirement("FR-051", "FR-052")
def test_a_5xx_says_nothing_of_the_inside(story: Story) -> None:
    bodies = {json.dumps(response.body) for _, _, response in story.exchanges if response.status >= 500}
    assert bodies == {'{"error": "Internal server error"}', '{"error": "Service temporarily unavailable"}'}


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
        events = [line["event"] for line in story.of_request(response)]
        assert events.count("rate_limited") == (response.status == 429)
        assert events.count("login_failed") == (response.status == 401 and path == LOGIN)
        assert events.count("token_rejected") == (response.status == 401 and path != LOGIN)


def test_no_secret_is_in_the_log(story: Story) -> None:
    assert_no_secret(story)


@pytest.mark.usefixtures("io_loop")
async def test_no_secret_is_in_the_log_at_its_most_talkative(tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "DATABASE_URL": "sqlite:///todo.db", "LOG_LEVEL": "debug"}
    async with serving(tmp_path, environment) as (process, client):
        story = Story(client, process)
        await misuse(story, await use(story))
        await send_bytes(story)
        assert await process.stop() == 0
    assert_one_form(story)
    assert_no_secret(story)


@pytest.mark.usefixtures("io_loop")
async def test_a_higher_level_drops_the_lines_of_requests(tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "DATABASE_URL": "sqlite:///todo.db", "LOG_LEVEL": "warning"}
    async with serving(tmp_path, environment) as (process, client):
        assert (await client.request("GET", "/health")).status == 200
        assert (await client.request("GET", TASKS)).status == 401
        assert await process.stop() == 0
    assert [line["event"] for line in process.events()] == ["token_rejected"]
    assert process.stderr == ""


@pytest.mark.usefixtures("io_loop")
async def test_the_form_for_people_is_short_and_has_no_colors_where_it_is_no_terminal(tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "DATABASE_URL": "sqlite:///todo.db", "LOG_FORMAT": "console"}
    async with serving(tmp_path, environment) as (process, client):
        assert (await client.request("GET", "/health")).status == 200
        async with connect(client) as connection:
            await connection.send(b"GET /\xc2\x9b31m HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await connection.read_answer()).status == 400
        assert await process.stop() == 0
    lines = process.stdout.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d \[info\] \w+\b", line) and len(line) < 140 for line in lines)
    assert any("path=/health status=200" in line for line in lines)
    assert any(r"path=/Â\u009b31m" in line for line in lines)
    assert process.stderr == ""


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_the_form_for_people_has_colors_on_a_terminal(tmp_path: Path, no_color: str, *, colored: bool) -> None:
    terminal, standard_output = os.openpty()
    environment = {**ENVIRONMENT, "DATABASE_URL": "sqlite:///todo.db", "LOG_FORMAT": "console", "NO_COLOR": no_color}
    subprocess.run([*RUN, "migrate"], cwd=tmp_path, env=environment, stdout=standard_output, check=True)
    written = os.read(terminal, 65536).decode()
    os.close(terminal)
    os.close(standard_output)
    assert "schema_migrated" in written
    assert ("\x1b[" in written) is colored


# The form of lines, in this process


@contextmanager
def configured(level: str = "info", line_format: str = "json") -> Iterator[None]:
    """Set up logging as the server does, and put everything back."""
    root, names = logging.getLogger(), ("alembic", "tornado.general")
    handlers, root_level, levels = root.handlers[:], root.level, [logging.getLogger(name).level for name in names]
    ours = structlog.get_config()
    logs.configure(level, line_format)
    try:
        yield
    finally:
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


@pytest.mark.parametrize("line_format", LOG_FORMATS)
def test_a_stack_trace_has_no_variables(capfd: pytest.CaptureFixture[str], line_format: str) -> None:

    def fail(secret: str) -> None:
        raise RuntimeError(len(secret))

    with configured(line_format=line_format):
        try:
            fail("a variable " + "of a frame")
        except RuntimeError:
            structlog.get_logger().exception("internal_error")
    written = capfd.readouterr().out
    assert "RuntimeError" in written
    assert "a variable of a frame" not in written


@pytest.mark.parametrize("name", ["tornado.application", "tornado.general", "asyncio", "aiopg", "concurrent.futures"])
def test_records_of_other_libraries_have_the_same_form(capfd: pytest.CaptureFixture[str], name: str) -> None:
    with configured():
        token = logs.request_keys.set({"request_id": "the-request"})
        logging.getLogger(name).warning("%s\nlines", "two")
        logs.request_keys.reset(token)
    line = only_line(capfd)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "two\nlines", "level": "warning", "logger": name, "request_id": "the-request"}


def fail(value: str) -> None:
    """Raise, with a value that no log should show."""
    raise ValueError(len(value))


def test_a_record_with_an_exception_has_its_stack_trace_as_data(capfd: pytest.CaptureFixture[str]) -> None:
    with configured():
        try:
            fail("a-local-variable")
        except ValueError:
            logging.getLogger("asyncio").exception("Task exception was never retrieved")
    line = only_line(capfd)
    assert line["request_id"] is None
    (exception,) = line["exception"]
    assert (exception["exc_type"], exception["exc_value"]) == ("ValueError", "16")
    assert exception["frames"][-1]["name"] == "fail"
    assert "a-local-variable" not in json.dumps(line)


def test_a_warning_is_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    with configured(), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("mind the gap", stacklevel=1)
    line = only_line(capfd)
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "mind the gap" in line["event"]


@pytest.mark.parametrize(
    "value", ["\ud800", "\u2028\x85\x00\n\r", 2**70, float("nan"), b"\xff", object(), {1: {2}}, [("x", None)]]
)
def test_whatever_is_logged_is_one_json_object(capfd: pytest.CaptureFixture[str], value: object) -> None:
    with configured():
        structlog.get_logger().info("odd", value=value)
    assert only_line(capfd)["event"] == "odd"


def test_levels_below_the_threshold_are_not_written(capfd: pytest.CaptureFixture[str]) -> None:
    with configured("error"):
        structlog.get_logger().warning("ours")
        logging.getLogger("tornado.application").warning("theirs")
        structlog.get_logger().error("this one")
    assert only_line(capfd)["event"] == "this one"


def test_control_characters_are_escaped(capfd: pytest.CaptureFixture[str]) -> None:
    with configured():
        structlog.get_logger().info("odd", value="\x00\x1b\x7f\x80\x9b\x9f\xa0é")
    written = capfd.readouterr().out
    assert written.endswith(r'"value":"\u0000\u001b\u007f\u0080\u009b\u009f' + '\xa0é"}\n')


def test_the_start_names_the_version(story: Story) -> None:
    (line,) = story.process.events("server_started")
    assert line["version"] == server.__version__


def test_the_event_and_its_level_stand_first(story: Story) -> None:
    assert {tuple(line)[:4] for line in story.events} == {("event", "level", "timestamp", "request_id")}


TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.usefixtures("io_loop")
async def test_the_trace_of_a_request_is_in_each_of_its_lines(tmp_path: Path) -> None:
    """The examples are those of W3C Trace Context, sections 3.2 and 4."""
    traced = [f"00-{TRACE}-b7ad6b7169203331-01", f"01-{TRACE}-b7ad6b7169203331-01-what-may-come"]
    untraced = [
        f"00-{TRACE}-b7ad6b7169203331-01-more",
        f"00-{TRACE}-b7ad6b7169203331-01.",
        f"ff-{TRACE}-b7ad6b7169203331-01",
        f"00-{TRACE.upper()}-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-01",
        TRACE,
        "",
    ]
    async with serving(tmp_path, {**ENVIRONMENT, "DATABASE_URL": "sqlite:///todo.db"}) as (process, client):
        for traceparent in (*traced, *untraced):
            assert (await client.request("GET", TASKS, headers={"traceparent": traceparent})).status == 401
        assert await process.stop() == 0
    for event in ("token_rejected", "request"):
        lines = process.events(event)
        assert [line.get("trace_id") for line in lines[: len(traced)]] == [TRACE] * len(traced)
        assert not any("trace_id" in line for line in lines[len(traced) :])


# The names that aggregators look for, as in the examples and tables of their documentation
EXAMPLES: dict[str, dict[str, Any]] = {
    # elastic.co/docs/reference/ecs/logging/python/installation, elastic.co/docs/reference/ecs/ecs-field-reference
    "ecs": {
        "@timestamp": "2020-03-26T13:08:11.728Z",
        "log.level": "debug",
        "message": "Example message!",
        "ecs.version": "1.6.0",
        "http": {"request": {"method": "get", "id": "123e4567"}, "response": {"status_code": 404}},
        "url": {"path": "/"},
        "client": {"ip": "10.42.42.42"},
        "user": {"id": "S-1-5-21"},
        "event": {"duration": 1},
        "trace": {"id": "4bf92f3577b34da6a3ce929d0e0e4736"},
        "error": {"type": "java.lang.NullPointerException", "message": "text", "stack_trace": "text"},
    },
    # docs.datadoghq.com/standard-attributes, docs.datadoghq.com/logs/log_configuration/pipelines
    "datadog": {
        "timestamp": "2020-03-26T13:08:11.728Z",
        "status": "info",
        "message": "text",
        "http": {"method": "GET", "status_code": 200, "request_id": "1", "url_details": {"path": "/"}},
        "network": {"client": {"ip": "10.42.42.42"}},
        "usr": {"id": "1"},
        "duration": 1,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "error": {"kind": "OSError", "message": "text", "stack": "text"},
    },
    # cloud.google.com/logging/docs/structured-logging, cloud.google.com/error-reporting/docs/formatting-error-messages
    "gcp": {
        "severity": "ERROR",
        "message": "There was an error in the application.",
        "httpRequest": {
            "requestMethod": "GET",
            "requestUrl": "/",
            "status": 200,
            "latency": "3.5s",
            "remoteIp": "192.168.1.1",
        },
        "time": "2020-10-12T07:20:50.52Z",
        "logging.googleapis.com/trace": "projects/my-projectid/traces/06796866738c859f2f19b7cfb3214824",
        "stack_trace": "text",
    },
}


def form(value: Any) -> Any:
    """Return the names and types of a line."""
    return {name: form(part) for name, part in value.items()} if isinstance(value, dict) else type(value)


def common(line: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a line that an example has too."""
    return {
        name: common(value, example[name]) if isinstance(value, dict) else value
        for name, value in line.items()
        if name in example
    }


@pytest.mark.parametrize("line_format", EXAMPLES)
def test_an_aggregator_finds_what_it_looks_for(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line_format: str
) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-projectid")
    with configured(line_format=line_format):
        token = logs.request_keys.set({"request_id": "4be1", "trace_id": TRACE})
        try:
            fail("a-local-variable")
        except ValueError:
            structlog.get_logger().exception(
                "internal_error",
                method="GET",
                route="/api/tasks",
                path="/api/tasks",
                status=500,
                duration_ms=3.5,
                user_id="f0e9",
                remote_ip="127.0.0.1",
                host="localhost",
                reason=None,
            )
        logs.request_keys.reset(token)
    line, example = only_line(capfd), EXAMPLES[line_format]
    assert form(common(line, example)) == form(example)
    assert not line.keys() & {"level", "reason"}
    assert line_format == "gcp" or "host" not in line
    assert line["message"] == "internal_error"
    written = json.dumps(line)
    assert "Traceback (most recent call last):" in written
    assert written.count(TRACE) == 1
    assert re.search(r"3500000\b|0\.003500s", written)
    assert next(iter(line)) in ("@timestamp", "timestamp", "time")


@pytest.mark.parametrize("line_format", ["json", *EXAMPLES])
def test_lines_of_each_form_for_machines_are_json(capfd: pytest.CaptureFixture[str], line_format: str) -> None:
    with configured(line_format=line_format):
        logging.getLogger("asyncio").warning("two\nlines")
        structlog.get_logger().info("odd", value="\ud800\x9b")
    first, second = capfd.readouterr().out.splitlines()
    assert "asyncio" in first
    assert json.loads(first).keys() & {"event", "message"}
    assert r"\u009b" in second
    assert json.loads(second)
