"""What is not compared with peers: start, memory, logins, and how cost grows with the number of tasks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

import bcrypt

from benchmarks.database import LARGE, execute, filled_database, rotating_tasks, tidy, user_id
from benchmarks.machine import CORES, SERVER_CORE, on
from benchmarks.measure import wrk
from benchmarks.operations import make_token, operations
from benchmarks.smoke import call
from benchmarks.subjects import OURS, running
from tests.support.processes import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.measure import Options
    from benchmarks.subjects import Server

PASSWORD = "Correct-horse-7"  # noqa: S105
BCRYPT_ROUNDS = 12
STARTS = 5
STEP = 10  # a user has so many times as many tasks as the one before
TIMES = 15  # that each list is asked for


@dataclass
class Extras:
    """The figures; ratios are None until they are measured."""

    small: int
    large: int
    deep: int
    start_seconds: float = 0
    memory: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    logins: float | None = None
    logins_per_second: float = 0
    growth: dict[str, float | None] = field(default_factory=dict)
    page_ms: float = 0
    whole_list_ms: dict[int, float] = field(default_factory=dict)
    whole_list_growth: float | None = None


def measure_start(extras: Extras, url: str, folder: Path, options: Options) -> None:
    """Start the server some times, on a migrated database, and take the time to the first 200."""
    found = []
    for _ in range(1 if options.quick else STARTS):
        started = time.perf_counter()
        with on(SERVER_CORE), running(OURS, url, folder) as server:
            assert call(server.port, "GET", "/health")[0] == 200
            found.append(time.perf_counter() - started)
    extras.start_seconds = median(found)


def measure_logins(extras: Extras, url: str, folder: Path, options: Options) -> None:
    """Log in from many clients at a server on all cores, and let bcrypt alone check as many passwords, in turns."""
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(BCRYPT_ROUNDS)).decode()
    execute(url, "UPDATE users SET password_hash = %s WHERE id = %s", (hashed, user_id(0)))
    count = len(CORES) * (2 if options.quick else 8)
    body = json.dumps({"email": "user0@example.com", "password": PASSWORD})
    with on(set(CORES)), running(OURS, url, folder, BCRYPT_ROUNDS=str(BCRYPT_ROUNDS)) as server:
        pairs = [(_logins(server, body, count), _bcrypt_alone(count)) for _ in range(1 if options.quick else 12)]
    extras.logins = _ratio(pairs)
    extras.logins_per_second = median(rate for rate, _ in pairs)


def _logins(server: Server, body: str, count: int) -> float:
    with ThreadPoolExecutor(4 * len(CORES)) as crowd:
        started = time.perf_counter()
        asked = [crowd.submit(call, server.port, "POST", "/api/auth/login", "", body) for _ in range(count)]
        assert {one.result()[0] for one in asked} == {200}
        return count / (time.perf_counter() - started)


def _bcrypt_alone(count: int) -> float:
    command = (sys.executable, "-m", "benchmarks.baselines.bcrypt_alone", str(count), str(BCRYPT_ROUNDS))
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=120)
    return float(done.stdout)


def measure_growth(extras: Extras, server_url: str, small_url: str, folder: Path, options: Options) -> None:
    """Run one server on the small table and one on a large one, and compare them in turns."""
    deep = [extras.deep // STEP**2, extras.deep // STEP, extras.deep]
    with ExitStack() as stack:
        large_url = stack.enter_context(filled_database(server_url, extras.large, tuple(deep)))
        urls = {"large": large_url, "small": small_url}
        with on(SERVER_CORE):
            servers = {name: stack.enter_context(running(OURS, url, folder)) for name, url in urls.items()}
        _compare_sizes(extras, urls, servers, folder, options)
        _time_lists(extras, servers["large"], deep)


def _compare_sizes(
    extras: Extras, urls: dict[str, str], servers: dict[str, Server], folder: Path, options: Options
) -> None:
    asked = {name: operations(rotating_tasks(url)) for name, url in urls.items()}
    for index, operation in enumerate(asked["small"]):
        pairs = []
        for number in range(1 + (1 if options.quick else 2 * options.rounds)):
            found = {}
            for name in sorted(urls, reverse=number % 2 == 0):
                said = wrk(servers[name], asked[name][index], folder, concurrency=1, seconds=options.seconds / 2)
                found[name] = said["seconds"] / said["requests"]
                servers[name].rest()
                if operation.writes:
                    tidy(urls[name])
            pairs.append((found["large"], found["small"]))
        extras.growth[operation.name] = _ratio(pairs[1:])  # the first is to warm up


def _time_lists(extras: Extras, server: Server, deep: list[int]) -> None:
    """Time page 1 of the user with the most tasks, and whole lists, which must grow no more than their users' tasks."""
    tokens = [make_token(user_id(LARGE + place)) for place in range(len(deep))]
    extras.page_ms = 1000 * median(_time(server, "/tasks?page=1&per_page=20", tokens[-1]) for _ in range(TIMES))
    rows = [[_time(server, "/api/tasks", token) for token in tokens] for _ in range(TIMES)]
    extras.whole_list_ms = {count: 1000 * median(row[index] for row in rows) for index, count in enumerate(deep)}
    extras.whole_list_growth = _ratio([(row[-1] / deep[-1], row[0] / deep[0]) for row in rows])


def _ratio(pairs: list[tuple[float, float]]) -> float:
    return median(first / second for first, second in pairs)


def _time(server: Server, path: str, token: str) -> float:
    started = time.perf_counter()
    assert call(server.port, "GET", path, token)[0] == 200
    return time.perf_counter() - started
