"""Clients that create tasks while something fails, and a check that the stored tasks agree with the responses."""

from collections.abc import Iterator
from itertools import count

from tests.support.load import UNAVAILABLE, Caller, Load, Request, RetryingCaller
from tests.support.services import Postgres


def numbered(kind: str = "task") -> Iterator[Request]:
    """Yield requests that create tasks with numbered titles."""
    for number in count():
        yield "POST", "/api/tasks", {"title": f"{kind} {number}"}


def start_creating(port: int, token: str, clients: int = 32) -> Load:
    """Let clients create tasks; half of them repeat each request, with an Idempotency-Key, until it gets a 201."""
    load = Load()
    load.start([Caller(port, token) for _ in range(clients // 2)], numbered())
    load.start([RetryingCaller(port, token) for _ in range(clients // 2)], numbered("retried"))
    return load


def assert_stored(database: Postgres, load: Load) -> dict[str, int]:
    """Check that each task with a 201 is stored once, and that every stored task was sent; return figures."""
    stored = database.execute("SELECT id::text, title FROM tasks WHERE title ~ '^(task|retried) '")
    titles = {title for _, title in stored}
    sent = {outcome.sent["title"] for outcome in load.outcomes if outcome.sent}
    tasks = [outcome.json["task"] for outcome in load.outcomes if outcome.status == 201]
    acknowledged = {(task["id"], task["title"]) for task in tasks}
    assert len(stored) == len(titles), "a task is stored twice"
    assert acknowledged <= set(stored), "an acknowledged task is lost"
    assert titles <= sent, "a task is stored that was not sent"
    retried = {title for title in sent | titles if title.startswith("retried")}
    assert retried <= {title for _, title in acknowledged}
    refused = [outcome for outcome in load.outcomes if outcome.status == 500]
    assert all(outcome.json == UNAVAILABLE for outcome in refused)
    return {
        "sent": len(load.outcomes),
        "acknowledged": len(acknowledged),
        "refused": len(refused),
        "no_response": sum(outcome.status is None for outcome in load.outcomes),
        "stored": len(stored),
        "replayed": sum(outcome.header("idempotency-replayed") is not None for outcome in load.outcomes),
    }
