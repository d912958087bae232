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

from benchmarks.database import LARGE, execute, filled_database, rotating_tasks, user_id
from benchmarks.measure import QUICK, ROUNDS, SECONDS, measure
from benchmarks.operations import PAGE_1, make_token, operations
from benchmarks.smoke import call
from benchmarks.subjects import CORES, OURS, SERVER_CORE, Server, on, running

SMALL, TOTAL, DEEP = (10_000, 50_000, 10_000) if QUICK else (10_000, 1_000_000, 100_000)
PASSWORD = "Correct-horse-7"  # noqa: S105
LOGIN_ROUNDS, LOGINS = (1, 2 * len(CORES)) if QUICK else (12, 8 * len(CORES))
TIMES = 15  # requests for each list


def start_seconds(url: str, folder: Path) -> float:
    """Return the seconds from the start of the process to its first 200, on a migrated database."""
    found = []
    for _ in range(5):
        started = time.perf_counter()
        with on(SERVER_CORE), running(OURS, url, folder) as server:
            _call(server, "/health")
            found.append(time.perf_counter() - started)
    return median(found)


def login_ratio(url: str, folder: Path) -> float:
    """Return logins per second ÷ passwords per second that bcrypt alone verifies, both on all cores."""
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(12))
    execute(url, "UPDATE users SET password_hash = %s WHERE id = %s", (hashed.decode(), user_id(0)))
    body = json.dumps({"email": "user0@example.com", "password": PASSWORD})
    with on(set(CORES)), running(OURS, url, folder) as server:
        pairs = [
            (
                _seconds(lambda _: call(server.port, "POST", "/api/auth/login", "", body)[0] == 200),
                _seconds(lambda _: bcrypt.checkpw(PASSWORD.encode(), hashed)),
            )
            for _ in range(LOGIN_ROUNDS)
        ]
    return median(alone / logins for logins, alone in pairs)


def _seconds(work: Callable[[int], bool]) -> float:
    with ThreadPoolExecutor(4 * len(CORES)) as threads:
        started = time.perf_counter()
        assert all(threads.map(work, range(LOGINS)))
        return time.perf_counter() - started


def growth(server_url: str, small_url: str, folder: Path) -> dict[str, list[float]]:
    """Compare a server on a large table with one on a small table, and a list of many tasks with a list of few.

    Returns:
        ``large_table``: for each operation, its time on the large table ÷ on the small one. ``page_1``: milliseconds
        for page 1 of the user with the most tasks. ``whole_list``: the time per task of this user's whole list ÷ that
        of a user with a hundredth of the tasks.
    """
    many = (DEEP // 100, DEEP)
    with ExitStack() as stack:
        urls = (stack.enter_context(filled_database(server_url, TOTAL, many)), small_url)
        with on(SERVER_CORE):
            servers = [stack.enter_context(running(OURS, url, folder)) for url in urls]
        few_token, many_token = (make_token(user_id(LARGE + place)) for place in range(len(many)))
        pages = [_call(servers[0], PAGE_1, many_token) for _ in range(TIMES)]
        lists = [
            _call(servers[0], "/api/tasks", many_token) / 100 / _call(servers[0], "/api/tasks", few_token)
            for _ in range(TIMES)
        ]
        return {
            "large_table": _compare_tables(servers, urls, folder),
            "page_1": [1000 * median(pages)],
            "whole_list": [median(lists)],
        }


def _compare_tables(servers: list[Server], urls: tuple[str, ...], folder: Path) -> list[float]:
    medians = []
    for pair in zip(*(operations(rotating_tasks(url)) for url in urls), strict=True):
        ratios = []
        for number in range(1 + 2 * ROUNDS):  # the first round warms up
            rates = [0.0, 0.0]
            for place in (0, 1) if number % 2 else (1, 0):
                rates[place] = measure(servers[place], pair[place], urls[place], folder, 1, SECONDS / 2).rate
            ratios.append(rates[1] / rates[0])
        medians.append(median(ratios[1:]))
    return medians


def _call(server: Server, path: str, token: str = "") -> float:
    started = time.perf_counter()
    assert call(server.port, "GET", path, token)[0] == 200
    return time.perf_counter() - started
