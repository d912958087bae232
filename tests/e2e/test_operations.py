"""docs/operations.md lists every event of the code, and its jq commands find what was done to real servers."""

import ast
import asyncio
import json
import os
import re
import shlex
import sqlite3
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.conftest import SECRET
from tests.support.client import PASSWORD, PATHS, Client, Person
from tests.support.processes import PROJECT, RUN, SETTINGS, serving, writes_locked

PAGE = (PROJECT / "docs" / "operations.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(sh|json)\n(.*?)^```", PAGE.partition("## Troubleshooting")[2], re.DOTALL | re.MULTILINE)
FAILING, SLOW, ONE_REQUEST, REJECTED, REFUSED, WATCH = [text for language, text in BLOCKS if language == "sh"]
EXAMPLES = [text for language, text in BLOCKS if language == "json"]
QUESTIONS = (FAILING, SLOW, ONE_REQUEST, REJECTED, REFUSED)
PATH = PATHS[0]
LIMIT = 3
TIMEOUT_SECONDS = 1
ATTACKER = "203.0.113.7"
REQUEST_ID = "of-both-servers"
TITLE = {"title": "Buy groceries"}
ENVIRONMENT = SETTINGS | {
    "AUTH_RATE_LIMIT": f"{LIMIT}/minute",
    "DATABASE_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
    "TRUSTED_PROXY_HOPS": "1",
}


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
class Logs:
    """The log files of two servers in a folder, and their lines."""

    folder: Path
    lines: list[dict[str, Any]]

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
        return [line for line in self.lines if line["event"] == "request"]


def token(key: str = SECRET, **claims: Any) -> str:
    return jwt.encode({"sub": "00000000-0000-4000-8000-000000000000", "exp": time.time() + 60, **claims}, key, "HS256")


async def reject_tokens(first: Client, second: Client) -> None:
    """Send tokens of five kinds that are not accepted, the expired ones from two addresses."""
    await first.request("GET", PATH.tasks)
    for address in (ATTACKER, ATTACKER, "198.51.100.1"):
        await first.request("GET", PATH.tasks, token=token(exp=1), headers={"X-Forwarded-For": address})
    for _ in range(2):
        await second.request("GET", PATH.tasks, token=token("another-secret-of-more-than-32-bytes"))
    await first.request("GET", PATH.tasks, token="no.token")
    await first.request("POST", PATH.tasks, TITLE, token=token())


async def refuse_logins(client: Client, email: str) -> None:
    """Reach the limit of an address, that of an email, and that of registering."""
    for address, known_email, statuses in (
        (ATTACKER, None, "401 401 401 429 429"),
        ("198.51.100.1", email, "401"),
        ("198.51.100.2", email, "401 401 429"),
    ):
        for status in statuses.split():
            value = {"email": known_email or Client.new_email("unknown"), "password": "Wrong-password-1"}
            response = await client.request("POST", PATH.login, value, headers={"X-Forwarded-For": address})
            assert response.status == int(status)
    for _ in range(LIMIT + 1):
        await client.request("POST", PATH.register, {}, headers={"X-Forwarded-For": "198.51.100.3"})


async def run_incident(first: Client, second: Client, database_url: str) -> None:
    """Let tokens and logins be refused, and a write fail that another process delays for too long."""
    alice = await Person.register(first, "alice")
    for client in (first, second, first):
        await client.request("GET", PATH.tasks, token=alice.token)
    await first.request("GET", "/no/such/path")
    await reject_tokens(first, second)
    await refuse_logins(first, alice.email)
    create = ("POST", PATH.tasks, TITLE)
    headers = {"X-Request-ID": REQUEST_ID}
    with writes_locked(database_url):
        assert (await first.request(*create, token=alice.token, headers=headers)).status == 500
    assert (await second.request(*create, token=alice.token, headers=headers)).status == 201


async def record_logs(folder: Path) -> Logs:
    """Run an incident, and write the logs of both servers to files, next to one with lines that are not theirs."""
    logs = Logs(folder, [])
    async with serving(folder, ENVIRONMENT) as first, serving(folder, ENVIRONMENT) as second:
        await run_incident(first[1], second[1], f"sqlite:///{folder}/todo.db")
        for number, (process, _) in enumerate((first, second), 1):
            assert await process.stop() == 0
            (folder / f"web.{number}.log").write_text(process.stdout, "utf-8")
            logs.lines += process.events()
    (folder / "web.3.log").write_text('Traceback (most recent call last):\n7\nnull\n["x"]\n{"event":"requ', "utf-8")
    return logs


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Logs:
    """The logs of an incident."""
    return asyncio.run(record_logs(tmp_path_factory.mktemp("incident")))


def test_failing_routes_are_listed(logs: Logs) -> None:
    classes = defaultdict[str, Counter[int]](Counter)
    for line in logs.requests():
        classes[f"{line['method']} {line['route'] or 'null'}"][line["status"] // 100] += 1
    found = logs.ask(FAILING)
    for line in found:
        counts = classes.pop(line["route"])
        assert (line["requests"], line["4xx"], line["5xx"]) == (counts.total(), counts[4], counts[5])
        assert line["rate"] == round(counts[5] / counts.total(), 3)
    assert classes == {}
    assert [line["rate"] for line in found] == sorted((line["rate"] for line in found), reverse=True)
    assert [line["route"] for line in found if line["5xx"]] == [f"POST {PATH.tasks}"]


def test_slow_routes_are_listed(logs: Logs) -> None:
    found = logs.ask(SLOW)
    assert {(line["route"], line["requests"]) for line in found} == {
        (line["route"], line["requests"]) for line in logs.ask(FAILING)
    }
    assert [line["p99"] for line in found] == sorted((line["p99"] for line in found), reverse=True)
    assert found[0]["route"] == f"POST {PATH.tasks}"
    assert found[0]["p99"] >= TIMEOUT_SECONDS * 1000


def test_percentiles_of_many_requests(logs: Logs) -> None:
    durations = [*range(1, 201), 1000, 2000]
    lines = [{"event": "request", "method": "GET", "route": "/", "duration_ms": ms - 0.5} for ms in durations]
    pipe = SLOW.replace("web.*.log", "")
    assert logs.ask(pipe, "\n".join(map(json.dumps, reversed(lines)))) == [
        {"route": "GET /", "requests": 202, "p50": 101, "p99": 200}
    ]


def test_lines_of_one_request_are_found(logs: Logs) -> None:
    found = logs.ask(ONE_REQUEST)
    assert [(line["file"], line["event"], line.get("status")) for line in found] == [
        ("web.1.log", "service_unavailable", None),
        ("web.1.log", "request", 500),
        ("web.2.log", "request", 201),
    ]
    assert {line["request_id"] for line in found} == {REQUEST_ID}
    assert found[0]["exception"][0]["exc_type"] == "DatabaseUnavailable"


def test_reasons_of_rejected_tokens_are_counted(logs: Logs) -> None:
    found = logs.ask(REJECTED)
    assert {line["reason"]: (line["rejected"], line["addresses"]) for line in found} == {
        "expired": (3, 2),
        "signature": (2, 1),
        "missing": (1, 1),
        "malformed": (1, 1),
        "unknown_user": (1, 1),
    }
    assert [line["rejected"] for line in found] == [3, 2, 1, 1, 1]


def test_addresses_of_refused_logins_are_listed(logs: Logs) -> None:
    assert logs.ask(REFUSED) == [
        {"remote_ip": ATTACKER, "refused": 5, "reasons": {"unknown_email": 3, "address": 2}},
        {"remote_ip": "198.51.100.2", "refused": 3, "reasons": {"wrong_password": 2, "email": 1}},
        {"remote_ip": "198.51.100.1", "refused": 1, "reasons": {"wrong_password": 1}},
    ]


@pytest.mark.parametrize(("question", "example"), zip(QUESTIONS, EXAMPLES, strict=True))
def test_examples_have_the_keys_of_the_output(logs: Logs, question: str, example: str) -> None:
    keys = [line.keys() for line in logs.ask(question)]
    for line in example.splitlines():
        assert json.loads(line).keys() in keys


def test_commands_take_a_pipe_and_a_time(logs: Logs) -> None:
    (sed,) = re.findall(r"`(sed '.*?')`", PAGE)
    (clause,) = re.findall(r'`(and \.timestamp > ".*?")`', PAGE)
    prefixed = "".join(f"2026-11-21T10:30:00+00:00 app[web.1]: {json.dumps(line)}\n" for line in logs.lines)
    piped = f"{sed} | {FAILING.replace('web.*.log', '')}"
    assert logs.ask(piped, prefixed) == logs.ask(FAILING)
    noon = sorted(line["timestamp"] for line in logs.requests())[9]
    later = clause.replace(re.findall('"(.*)"', clause)[0], noon)
    found = logs.ask(FAILING.replace('== "request"', f'== "request" {later}'))
    assert sum(line["requests"] for line in found) == len(logs.requests()) - 10


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
