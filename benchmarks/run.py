"""``python -m benchmarks.run``: measure everything, print it, and write it down.

The environment sets how much: QUICK=1 for one short round whose results go into a temporary folder; ROUNDS, SECONDS (of
each measurement) and CONCURRENCY (numbers of connections, separated by commas).
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks import chart, machine, report, smoke
from benchmarks.database import execute, filled_database, postgresql_server, rotating_tasks
from benchmarks.extras import Extras, measure_growth, measure_logins, measure_start
from benchmarks.figures import Figures
from benchmarks.measure import Measurement, Options, rounds
from benchmarks.operations import Operation, operations
from benchmarks.subjects import BASELINE, OURS, SUBJECTS, Server, Subject, running
from benchmarks.targets import targets
from tests.support.processes import PROJECT

SETTLE_SECONDS = 1  # after a start, before memory is looked at


def main() -> None:
    """Run everything."""
    options = Options.from_environment()
    extras = Extras(10_000, *((50_000, 10_000) if options.quick else (1_000_000, 100_000)))
    if len(machine.CORES) == 1:
        print("One core only: server, client and database share it, and disturb each other")
    subjects = [one for one in SUBJECTS if one.installed()]
    left_out = [one.name for one in SUBJECTS if one not in subjects]
    for name in left_out:
        print(f"LEFT OUT, its packages are not installed: {name}")
    with ExitStack() as stack:
        stack.enter_context(machine.on(machine.OTHER_CORE))
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="todo-bench-", ignore_cleanup_errors=True))
        )
        server_url = stack.enter_context(postgresql_server())
        url = stack.enter_context(filled_database(server_url, extras.small))
        versions = machine.versions(execute(url, "SHOW server_version")[0][0].split()[0])
        figures = Figures(race(subjects, url, folder, extras, options))
        measure_start(extras, url, folder, options)
        measure_logins(extras, url, folder, options)
        measure_growth(extras, server_url, url, folder, options)
    found = targets(figures, extras, options)
    write(report.Results(options, machine.describe(), versions, left_out, figures, extras, found))


def race(subjects: list[Subject], url: str, folder: Path, extras: Extras, options: Options) -> list[Measurement]:
    """Start every server, check its responses, and measure it."""
    asked = operations(rotating_tasks(url))
    with ExitStack() as stack:
        with machine.on(machine.SERVER_CORE):
            servers = [stack.enter_context(running(one, url, folder)) for one in subjects]
        print(f"{len(servers)} servers are running", flush=True)
        time.sleep(SETTLE_SECONDS)
        extras.memory = {server.subject.name: {"idle": server.memory()} for server in servers}
        sizes = check(servers, asked, url)
        of_baseline = [
            replace(one, requests=tuple((user, f"/{one.name}/{sizes[one.name]}") for user, _ in one.requests))
            for one in asked
        ]
        found = rounds(servers, tuple(zip(asked, of_baseline, strict=True)), url, folder, options)
        for server in servers:
            extras.memory[server.subject.name]["loaded"] = server.memory()
    return found


def check(servers: list[Server], asked: tuple[Operation, ...], url: str) -> dict[str, int]:
    """Check every server's responses by ours, and return the sizes of ours in bytes."""
    (ours,) = (server for server in servers if server.subject is OURS)
    expected = smoke.responses(ours, asked, url)
    for server in servers:
        if server.subject not in (OURS, BASELINE):
            smoke.compare(server, smoke.responses(server, asked, url), expected)
    return smoke.sizes(ours, asked, url)


def write(results: report.Results) -> None:
    """Print and write the results; the figures of a quick run mean nothing, and go elsewhere."""
    folder = Path(tempfile.mkdtemp(prefix="todo-bench-results-")) if results.options.quick else PROJECT
    for name in ("docs", "benchmarks"):
        (folder / name).mkdir(exist_ok=True)
    print(everything := report.everything(results))
    (folder / "benchmarks" / "results.md").write_text(everything, "utf-8")
    for name, written in (("docs/performance.md", report.page(results)), ("README.md", report.summary(results))):
        report.write_between(PROJECT / name, written, folder / name)
    chart.draw(results.figures, folder / "docs" / "performance.svg")
    print(f"Written into {folder}: README.md, docs/performance.md, docs/performance.svg, benchmarks/results.md")


if __name__ == "__main__":
    main()
