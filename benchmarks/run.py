"""``python -m benchmarks.run``: measure everything, and write the results and the pages that show them.

The variables ROUNDS and SECONDS (per measurement) set how much is measured. QUICK=1 measures one short round, and
writes into a temporary folder.
"""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import extras, report, smoke
from benchmarks.database import execute, filled_database, postgresql_server
from benchmarks.measure import CONNECTIONS, QUICK, ROUNDS, SECONDS, measure_rounds
from benchmarks.subjects import BASELINE, OTHER_CORE, OURS, SUBJECTS, NotListening, describe_machine, on, running
from tests.support.processes import PROJECT


def main() -> None:
    """Measure everything, and write the results."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="todo-bench-")))
        stack.enter_context(on(OTHER_CORE))
        server_url = stack.enter_context(postgresql_server())
        url = stack.enter_context(filled_database(server_url, extras.SMALL))
        version = execute(url, "SHOW server_version")[0][0].split()[0]
        results = {
            "conditions": f"{ROUNDS} rounds of {SECONDS:g} s; {describe_machine()}, PostgreSQL {version}",
            "connections": CONNECTIONS,
            **compare(url, folder),
            "start": extras.start_seconds(url, folder),
            "logins": extras.login_ratio(url, folder),
        }
        large_url = stack.enter_context(filled_database(server_url, extras.TOTAL, (extras.DEEP // 100, extras.DEEP)))
        results |= {"large_table": extras.table_ratios(url, large_url, folder), **extras.list_times(large_url, folder)}
    target = Path(tempfile.mkdtemp(prefix="todo-bench-results-")) if QUICK else PROJECT
    file = target / "benchmarks" / "results.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(results, indent=1), "utf-8")
    report.write(results, target)


def compare(url: str, folder: Path) -> dict[str, Any]:
    """Start every server, check its responses, and measure it."""
    servers, left_out = [], []
    with ExitStack() as stack:
        for subject in SUBJECTS:
            try:
                servers.append(stack.enter_context(running(subject, url, folder)))
            except (NotListening, FileNotFoundError) as error:
                if subject in (OURS, BASELINE):
                    raise
                print(f"LEFT OUT: {subject.name}: {error}")
                left_out.append(subject.name)
        print(f"{len(servers)} servers are running", flush=True)
        time.sleep(1)
        memory = {server.subject.name: server.megabytes() for server in servers}
        smoke.check([server for server in servers if server.subject is not BASELINE])
        measurements = measure_rounds(servers, folder, *CONNECTIONS)
    return {"left_out": left_out, "memory": memory, "measurements": measurements}


if __name__ == "__main__":
    main()
