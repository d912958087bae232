"""``python -m benchmarks.run``: measure everything, print it, and write it down.

The environment says how much: QUICK=1 for one short round whose results go into a temporary folder; ROUNDS, SECONDS (of
each measurement) and CONCURRENCY (numbers of connections, separated by commas).
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks import chart, machine, report, smoke
from benchmarks.database import ALICE, ALICE_TASKS, execute, filled_database, postgresql_server, rotating_ids
from benchmarks.extras import Extras, hash_password, measure_growth, measure_logins, measure_start
from benchmarks.figures import Figures
from benchmarks.measure import Field, Measurement, Options, rounds
from benchmarks.operations import Operation, operations
from benchmarks.subjects import AIOPG, CONSTANT, EVERYBODY, OURS, SECRET, Server, Subject, running
from benchmarks.targets import targets
from tests.processes import PROJECT

SETTLE_SECONDS = 1  # after a start, before its memory is looked at


def main() -> None:
    """Run everything."""
    options = Options.from_environment()
    extras = Extras(10_000, *((50_000, 10_000) if options.quick else (1_000_000, 100_000)))
    if len(machine.CORES) == 1:
        print("One core only: server, client and database share it, and disturb each other")
    subjects = tuple(one for one in EVERYBODY if one.installed())
    left_out = [one.title for one in EVERYBODY if one not in subjects]
    for title in left_out:
        print(f"LEFT OUT, its packages are not installed: {title}")
    with ExitStack() as stack:
        stack.enter_context(machine.on(machine.OTHER_CORE))
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="todo-bench-", ignore_cleanup_errors=True))
        )
        server_url = stack.enter_context(postgresql_server())
        url = stack.enter_context(filled_database(server_url, {0: ALICE_TASKS}, extras.small, hash_password()))
        measurements = race(subjects, url, folder, extras, options)
        measure_start(extras, url, folder, options)
        measure_logins(extras, url, folder, options)
        measure_growth(extras, server_url, url, folder, options)
        versions = machine.versions(execute(url, "SHOW server_version")[0][0].split()[0])
    figures = Figures(measurements)
    found = targets(figures, extras, options)
    finish(report.Results(options, machine.describe(), versions, left_out, measurements, figures, extras, found))


def race(subjects: tuple[Subject, ...], url: str, folder: Path, extras: Extras, options: Options) -> list[Measurement]:
    """Start everybody who listens, check their answers, and measure them."""
    asked = operations(rotating_ids(url))
    with ExitStack() as stack:
        with machine.on(machine.SERVER_CORE):
            servers = {one.name: stack.enter_context(running(one, url, folder)) for one in subjects if one != AIOPG}
        time.sleep(SETTLE_SECONDS)
        extras.memory = {name: {"idle": server.memory()} for name, server in servers.items()}
        sizes = check(servers, asked, url)
        token = smoke.make_token(SECRET, ALICE)
        baseline = tuple(replace(one, paths=(f"/{one.name}/{sizes[one.name]}",)) for one in asked)
        found = rounds(Field(url, folder, token, servers, subjects, asked, baseline), options)
        for name, server in servers.items():
            extras.memory[name]["loaded"] = server.memory()
    return found


def check(servers: dict[str, Server], asked: tuple[Operation, ...], url: str) -> dict[str, int]:
    """Check everybody's answers by ours, and return the sizes of ours in bytes."""
    ours = servers[OURS.name]
    expected = smoke.answers(ours, asked, SECRET, url)
    for server in servers.values():
        if server.subject not in (OURS, *CONSTANT):
            smoke.compare(server, smoke.answers(server, asked, SECRET, url), expected)
    return smoke.sizes(ours, asked, SECRET, url)


def finish(results: report.Results) -> None:
    """Print and write the results; those of a quick run say nothing about anything, and go elsewhere."""
    docs, json_folder = PROJECT / "docs", PROJECT / "benchmarks"
    written = docs
    if results.options.quick:
        written = json_folder = Path(tempfile.mkdtemp(prefix="todo-bench-results-"))
    report.print_all(results)
    report.write(results, json_folder / "results.json", docs / "performance.md", written / "performance.md")
    chart.draw(results.figures, written / "performance.svg")
    print(f"\nWritten: {json_folder / 'results.json'}, {written / 'performance.md'}, {written / 'performance.svg'}")


if __name__ == "__main__":
    main()
