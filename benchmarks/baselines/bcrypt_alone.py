"""``python -m benchmarks.baselines.bcrypt_alone COUNT ROUNDS``: prints how many passwords a second all cores check."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import bcrypt


def main(count: int, rounds: int) -> float:
    """Check a password so many times, in as many threads as there are cores."""
    password = b"Correct-horse-7"
    hashed = bcrypt.hashpw(password, bcrypt.gensalt(rounds))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        started = time.perf_counter()
        assert all(threads.map(lambda _: bcrypt.checkpw(password, hashed), range(count)))
        return count / (time.perf_counter() - started)


if __name__ == "__main__":
    print(main(int(sys.argv[1]), int(sys.argv[2])))
