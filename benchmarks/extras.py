"""Measurements of this server alone: start, logins, and the cost of many tasks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import bcrypt

from benchmarks.database import LARGE, execute
from benchmarks.measure import QUICK, Figures, measure_rounds
from benchmarks.operations import PAGE_1, make_token, user_id
from benchmarks.smoke import call
from benchmarks.subjects import CORES, OURS, Server, on, running

SMALL, TOTAL, DEEP = (10_000, 50_000, 10_000) if QUICK else (10_000, 1_000_000, 100_000)
PASSWORD = "Correct-horse-7"  # noqa: S105
LOGIN_ROUNDS, LOGINS = (1, 2 * len(CORES)) if QUICK else (12, 8 * len(CORES))
TIMES = 15  # requests for each list


def start_seconds(url: str, folder: Path) -> float:
    """Return the seconds from the start of the process to its first 200, on a migrated database."""
    found = []
    for _ in range(5):
        started = time.perf_counter()
        with running(OURS, url, folder) as server:
            _call(server, "/health")
            found.append(time.perf_counter() - started)
    return median(found)


def login_ratio(url: str, folder: Path) -> float:
    """Return logins per second ÷ passwords per second that bcrypt alone verifies, both on all cores."""
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(12))
    execute(url, "UPDATE users SET password_hash = %s WHERE id = %s", (hashed.decode(), user_id(0)))
    body = json.dumps({"email": "user0@example.com", "password": PASSWORD})
    with on(set(CORES)), running(OURS, url, folder, set(CORES)) as server:
        return median(
            _seconds(lambda _: bcrypt.checkpw(PASSWORD.encode(), hashed))
            / _seconds(lambda _: call(server.port, "POST", "/api/auth/login", "", body)[0] == 200)
            for _ in range(LOGIN_ROUNDS)
        )


def _seconds(work: Callable[[int], bool]) -> float:
    with ThreadPoolExecutor(4 * len(CORES)) as threads:
        started = time.perf_counter()
        assert all(threads.map(work, range(LOGINS)))
        return time.perf_counter() - started


def table_ratios(small_url: str, large_url: str, folder: Path) -> list[float]:
    """Return, for each operation, its time on a large table ÷ on a small one, one request at a time."""
    with ExitStack() as stack:
        urls = {"small": small_url, "large": large_url}
        servers = [stack.enter_context(running(OURS._replace(name=name), url, folder)) for name, url in urls.items()]
        return Figures(measure_rounds(servers, folder, 1), 1).ratios("small", "large", "rate")


def list_times(large_url: str, folder: Path) -> dict[str, float]:
    """Measure the lists of the user with ``DEEP`` tasks, and of the user before, who has a hundredth of them.

    Returns:
        ``page_1``: milliseconds for page 1 of the longer list. ``whole_list``: its time per task ÷ the shorter one's.
    """
    few, many = (make_token(user_id(LARGE + place)) for place in range(2))
    with running(OURS, large_url, folder) as server:
        pages = [1000 * _call(server, PAGE_1, many) for _ in range(TIMES)]
        ratios = [_call(server, "/api/tasks", many) / 100 / _call(server, "/api/tasks", few) for _ in range(TIMES)]
    return {"page_1": median(pages), "whole_list": median(ratios)}


def _call(server: Server, path: str, token: str = "") -> float:
    started = time.perf_counter()
    assert call(server.port, "GET", path, token)[0] == 200
    return time.perf_counter() - started
