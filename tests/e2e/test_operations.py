"""docs/operations.md lists every event of the code, and its jq commands find what was done to real servers."""

import ast
import asyncio
import json
import math
import os
import re
import shlex
import sqlite3
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.conftest import SECRET, new_postgresql_database
from tests.support.client import PASSWORD, PATHS, Client, Person, Response
from tests.support.processes import PROJECT, RUN, SETTINGS, Gate, Process, serving, writes_locked

PAGE = (PROJECT / "docs" / "operations.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(sh|json)\n(.*?)^```", PAGE.partition("## Troubleshooting")[2], re.DOTALL | re.MULTILINE)
FAILING, SLOW, ONE_REQUEST, REJECTED, REFUSED, WATCH = [text for language, text in BLOCKS if language == "sh"]
EXAMPLES = [text for language, text in BLOCKS if language == "json"]
QUESTIONS = (FAILING, SLOW, ONE_REQUEST, REJECTED, REFUSED)
PATH = PATHS[0]
LIMIT = 3
SLOW_SECONDS = 1.0
ATTACKER = "203.0.113.7"
REQUEST_ID = "of-both-servers"
TITLE = {"title": "Buy groceries"}
ENVIRONMENT = SETTINGS | {"AUTH_RATE_LIMIT": f"{LIMIT}/minute", "TRUSTED_PROXY_HOPS": "1"}


def events_in_code() -> Iterator[tuple[str, str, frozenset[str]]]:
    """Yield the name, level and keys of each call that logs."""
    for file in (PROJECT / "server").rglob("*.py"):
        text = file.read_text("utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and (call := re.fullmatch(r"log\.(\w+)|self\._warn", ast.unparse(node.func))):
                keys = {{"exc_info": "exception"}.get(str(word.arg), str(word.arg)) for word in node.keywords}
                keys -= {"None"}  # **request.log_keys, which every line of a request has
                event = ast.unparse(node.args[0])
                source = event if event != "event" else " ".join(re.findall("^ +event = (.*)", text, re.MULTILINE))
                for name in re.findall(r"""['"](\w+)['"]""", source):
                    yield name, call[1] or "warning", frozenset(keys)


def test_table_of_events_matches_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\|", PAGE, re.MULTILINE)
    documented = [(name, level, frozenset(re.findall(r"`(\w+)`", keys))) for name, level, keys in rows]
    assert len(documented) == len({name for name, _, _ in documented})
    assert set(documented) == set(events_in_code())


@dataclass
class Incident:
    """Two servers and the requests that were sent to them; afterwards their log files in a folder."""

    folder: Path
    servers: list[tuple[Process, Client]] = field(default_factory=list)
    done: list[tuple[str, int]] = field(default_factory=list)  # route and status

    async def send(self, method: str, path: str, value: Any = ..., *, server: int = 0, **options: Any) -> Response:
        """Send a request, and note its route and status."""
        response = await self.servers[server][1].request(method, path, value, **options)
        self.done.append((f"{method} {'null' if path == '/no/such/path' else path}", response.status))
        return response

    async def log_in(self, statuses: str, email: str | None, address: str) -> None:
        """Send wrong passwords for an account, or for new emails, and check the statuses of the responses."""
        for status in statuses.split():
            value = {"email": email or Client.new_email("unknown"), "password": "Wrong-password-1"}
            response = await self.send("POST", PATH.login, value, headers={"X-Forwarded-For": address})
            assert response.status == int(status)

    def ask(self, question: str, lines: str | None = None) -> list[dict[str, Any]]:
        """Run a command of the page on the log files, or on lines through a pipe, and return its output."""
        found = subprocess.run(
            ["sh", "-c", question],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "ID": REQUEST_ID},
            input=lines,
            capture_output=True,
            encoding="utf-8",
            timeout=30,
            check=True,
        )
        assert found.stderr == ""
        return [json.loads(line) for line in found.stdout.splitlines()]

    def requests(self) -> list[dict[str, Any]]:
        """Return the ``request`` lines of both logs."""
        return [line for process, _ in self.servers for line in process.events("request")]


def token(key: str = SECRET, **claims: Any) -> str:
    return jwt.encode({"sub": "00000000-0000-4000-8000-000000000000", "exp": time.time() + 60, **claims}, key, "HS256")


async def reject_tokens(incident: Incident) -> None:
    """Send tokens of five kinds that are not accepted, the expired ones from two addresses."""
    await incident.send("GET", PATH.tasks)
    for address in (ATTACKER, ATTACKER, "198.51.100.1"):
        await incident.send("GET", PATH.tasks, token=token(exp=1), headers={"X-Forwarded-For": address})
    for _ in range(2):
        await incident.send("GET", PATH.tasks, token=token("another-secret-of-more-than-32-bytes"), server=1)
    await incident.send("GET", PATH.tasks, token="no.token")
    await incident.send("POST", PATH.tasks, TITLE, token=token())


async def refuse_logins(incident: Incident, email: str) -> None:
    """Reach the limit of an address, that of an email, and that of registering."""
    await incident.log_in("401 401 401 429 429", None, ATTACKER)
    await incident.log_in("401", email, "198.51.100.1")
    await incident.log_in("401 401 429", email, "198.51.100.2")
    for _ in range(LIMIT + 1):
        await incident.send("POST", PATH.register, {}, headers={"X-Forwarded-For": "198.51.100.3"})


async def run_incident(incident: Incident, database_url: str, gate: Gate) -> None:
    """Let tokens and logins be refused, a statement wait for a lock, and the database be unreachable."""
    alice = await Person.register(incident.servers[0][1], "alice")
    incident.done.append((f"POST {PATH.register}", 201))
    for server in (0, 1, 0):
        await incident.send("GET", PATH.tasks, token=alice.token, server=server)
    await incident.send("GET", "/no/such/path")
    await reject_tokens(incident)
    await refuse_logins(incident, alice.email)
    with writes_locked(database_url):
        slow = asyncio.create_task(incident.send("POST", PATH.tasks, TITLE, token=alice.token))
        await asyncio.sleep(SLOW_SECONDS)
    assert (await slow).status == 201
    await gate.shut()
    headers = {"X-Request-ID": REQUEST_ID}
    assert (await incident.send("GET", PATH.tasks, token=alice.token, headers=headers)).status == 500
    assert (await incident.send("GET", "/health/ready", server=1)).status == 503
    await gate.open()
    assert (await incident.send("GET", PATH.tasks, token=alice.token, headers=headers, server=1)).status == 200


async def record_incident(folder: Path, database_url: str) -> Incident:
    """Run an incident, and write the logs of both servers to files, next to one with lines that are not theirs."""
    incident = Incident(folder)
    async with Gate(database_url, "any") as gate, AsyncExitStack() as stack:
        await gate.open()
        environment = ENVIRONMENT | {"DATABASE_URL": gate.url}
        incident.servers += [await stack.enter_async_context(serving(folder, environment)) for _ in range(2)]
        await run_incident(incident, database_url, gate)
        for number, (process, _) in enumerate(incident.servers, 1):
            assert await process.stop() == 0
            (folder / f"web.{number}.log").write_text(process.stdout, "utf-8")
    (folder / "web.3.log").write_text('Traceback (most recent call last):\n7\nnull\n["x"]\n{"event":"requ', "utf-8")
    return incident


@pytest.fixture(scope="module")
def logs(postgresql_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incident]:
    """The logs of an incident."""
    with new_postgresql_database(postgresql_server) as url:
        yield asyncio.run(record_incident(tmp_path_factory.mktemp("incident"), url))


def test_failing_routes_are_listed(logs: Incident) -> None:
    expected = []
    for route in {route for route, _ in logs.done}:
        classes = Counter(status // 100 for known, status in logs.done if known == route)
        counts = {"requests": classes.total(), "4xx": classes[4], "5xx": classes[5]}
        expected.append({"route": route, **counts, "rate": round(classes[5] / classes.total(), 3)})
    found = logs.ask(FAILING)
    assert sorted(found, key=itemgetter("route")) == sorted(expected, key=itemgetter("route"))
    assert [line["rate"] for line in found] == sorted((line["rate"] for line in found), reverse=True)
    assert [line["route"] for line in found if line["5xx"]] == ["GET /health/ready", f"GET {PATH.tasks}"]


def test_slow_routes_are_listed(logs: Incident) -> None:
    durations = defaultdict(list)
    for line in logs.requests():
        durations[f"{line['method']} {line['route'] or 'null'}"].append(math.ceil(line["duration_ms"]))
    found = logs.ask(SLOW)
    assert {line["route"]: line["requests"] for line in found} == Counter(route for route, _ in logs.done)
    for line in found:
        ordered = sorted(durations[line["route"]])
        for percent in (50, 99):
            assert line[f"p{percent}"] == ordered[math.ceil(len(ordered) * percent / 100) - 1]
    assert [line["p99"] for line in found] == sorted((line["p99"] for line in found), reverse=True)
    assert found[0]["route"] == f"POST {PATH.tasks}"
    assert found[0]["p99"] > SLOW_SECONDS * 500  # a part of the time passes before the request arrives


def test_percentiles_of_many_requests(logs: Incident) -> None:
    durations = [*range(1, 201), 1000, 2000]
    lines = [{"event": "request", "method": "GET", "route": "/", "duration_ms": ms - 0.5} for ms in durations]
    pipe = SLOW.replace("web.*.log", "")
    assert logs.ask(pipe, "\n".join(map(json.dumps, reversed(lines)))) == [
        {"route": "GET /", "requests": 202, "p50": 101, "p99": 200}
    ]


def test_lines_of_one_request_are_found(logs: Incident) -> None:
    found = logs.ask(ONE_REQUEST)
    assert [(line["file"], line["event"], line.get("status")) for line in found] == [
        ("web.1.log", "service_unavailable", None),
        ("web.1.log", "request", 500),
        ("web.2.log", "request", 200),
    ]
    assert {line["request_id"] for line in found} == {REQUEST_ID}
    assert found[0]["exception"][0]["exc_type"] == "DatabaseUnavailable"


def test_reasons_of_rejected_tokens_are_counted(logs: Incident) -> None:
    found = logs.ask(REJECTED)
    assert {line["reason"]: (line["rejected"], line["addresses"]) for line in found} == {
        "expired": (3, 2),
        "signature": (2, 1),
        "missing": (1, 1),
        "malformed": (1, 1),
        "unknown_user": (1, 1),
    }
    assert [line["rejected"] for line in found] == [3, 2, 1, 1, 1]


def test_addresses_of_refused_logins_are_listed(logs: Incident) -> None:
    assert logs.ask(REFUSED) == [
        {"remote_ip": ATTACKER, "refused": 5, "reasons": {"unknown_email": 3, "address": 2}},
        {"remote_ip": "198.51.100.2", "refused": 3, "reasons": {"wrong_password": 2, "email": 1}},
        {"remote_ip": "198.51.100.1", "refused": 1, "reasons": {"wrong_password": 1}},
    ]


def form(value: Any) -> Any:
    """Return an object's keys with the types of their values; numbers are of one type."""
    if isinstance(value, dict):
        return {key: form(its_value) for key, its_value in value.items()}
    if isinstance(value, list):
        return [form(value[0])]
    return float if isinstance(value, int) else type(value)


@pytest.mark.parametrize(("question", "example"), zip(QUESTIONS, EXAMPLES, strict=True))
def test_examples_have_the_form_of_the_output(logs: Incident, question: str, example: str) -> None:
    forms = [form(line) for line in logs.ask(question)]
    for line in example.splitlines():
        assert form(json.loads(line)) in forms


def test_commands_take_a_pipe_and_a_time(logs: Incident) -> None:
    (sed,) = re.findall(r"`(sed '.*?')`", PAGE)
    (clause,) = re.findall(r'`(and \.timestamp > ".*?")`', PAGE)
    files = [(logs.folder / f"web.{number}.log").read_text("utf-8") for number in (1, 2)]
    prefixed = "".join(f"2026-11-21T10:30:00+00:00 app[web.1]: {line}\n" for line in "".join(files).splitlines())
    piped = f"{sed} | {FAILING.replace('web.*.log', '')}"
    assert logs.ask(piped, prefixed) == logs.ask(FAILING)
    noon = sorted(line["timestamp"] for line in logs.requests())[9]
    later = clause.replace(re.findall('"(.*)"', clause)[0], noon)
    found = logs.ask(FAILING.replace('== "request"', f'== "request" {later}'))
    assert sum(line["requests"] for line in found) == len(logs.done) - 10


@pytest.mark.usefixtures("io_loop")
async def test_errors_of_a_running_server_are_shown(tmp_path: Path) -> None:
    command = WATCH.replace("python run.py", shlex.join(RUN))
    async with serving(tmp_path, ENVIRONMENT, command=("sh", "-c", command)) as (watch, client):
        assert (await client.request("GET", PATH.tasks)).status == 401
        with closing(sqlite3.connect(tmp_path / "todo.db")) as file:
            file.execute("DROP TABLE users")
        response = await client.request("POST", PATH.register, {"email": "me@example.com", "password": PASSWORD})
        assert response.status == 500
        error = await watch.wait_for("internal_error")
        assert error["request_id"] == response.headers["X-Request-ID"]
        assert watch.events() == [error]
        assert set(error["exception"][0]) == {"exc_type", "exc_value"}
    assert '"event":"token_rejected"' in (tmp_path / "web.1.log").read_text("utf-8")
