"""docs/operations.md lists every event of the code, and its jq commands find what was done to real servers."""

import ast
import asyncio
import json
import math
import re
import shlex
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import new_postgresql_database
from tests.support.client import PASSWORD
from tests.support.incident import ATTACKER, ENVIRONMENT, PATH, SLOW_SECONDS, Incident, record_incident
from tests.support.processes import PROJECT, RUN, client_of, free_port, started

PAGE = (PROJECT / "docs" / "operating.md").read_text("utf-8")
FAILING, SLOW, ONE_REQUEST, REJECTED, REFUSED, WATCH = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
EXAMPLES = re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
QUESTIONS = (FAILING, SLOW, ONE_REQUEST, REJECTED, REFUSED)


def events_in_code() -> Iterator[tuple[str, str, frozenset[str]]]:
    """Yield the name, level and keys of each call that logs."""
    for file in (PROJECT / "run.py", *(PROJECT / "server").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and re.match(r"log\.\w+$", ast.unparse(node.func)):
                level = ast.unparse(node.func).removeprefix("log.")
                keys = frozenset({"exc_info": "exception"}.get(str(word.arg), str(word.arg)) for word in node.keywords)
                keys -= {"None"}  # **request.log_keys, which every line of a request has
                names = re.findall(r"'(\w+)'", ast.unparse(node.args[0]))
                assert names, ast.unparse(node)
                yield from ((name, level, keys) for name in names)


def test_table_of_events_matches_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\|", PAGE, re.MULTILINE)
    documented = [(name, level, frozenset(re.findall(r"`(\w+)`", keys))) for name, level, keys in rows]
    assert len(documented) == len({name for name, _, _ in documented})
    assert set(documented) == set(events_in_code())


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
    assert {line["request_id"] for line in found} == {logs.request_id}
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
    port = free_port()
    environment = {**ENVIRONMENT, "DATABASE_URL": "sqlite:///todo.db", "HOST": "127.0.0.1", "PORT": str(port)}
    command = WATCH.replace("python run.py", shlex.join(RUN))
    async with (
        started("sh", "-c", command, folder=tmp_path, environment=environment) as watch,
        client_of(port) as client,
    ):
        await watch.wait_for_port(port)
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
