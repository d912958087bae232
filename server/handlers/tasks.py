"""Task handlers: each verb calls ``queries.tasks`` on behalf of the token's user."""

import math
import re
from contextlib import suppress
from datetime import datetime

import orjson

from server.api.operations import Operation, out_of_range
from server.clock import format_time
from server.database import ForeignKeyViolation
from server.errors import AccessDenied, IdempotencyKeyReused, TaskChanged, TaskNotFound, ValidationFailed
from server.handlers.base import PrivateHandler
from server.queries import tasks
from server.values import parse_uuid

ITEM_ERRORS = (TaskNotFound(), AccessDenied())
CONDITIONS = ("If-Match", "If-None-Match")
ETAG = re.compile(rf'"([0-9-]{{10}}T[0-9:]{{8}}\.[0-9]{{6}}Z)-{tasks.FORM}"')
SHORT_LIST = 48  # maximum number of tasks that are sent in one piece; 48 of the longest are 250 KB of JSON
PIECE_BYTES = 128 * 1024  # target size of the pieces in which a longer list is sent
MIN_PIECE, MAX_PIECE = 24, 500  # tasks per piece; 24 of the longest are 125 KB
QUERY = {"page": 999_999_999, "per_page": 100}  # the query parameters of a list, with their maxima


class TaskHandler(PrivateHandler):
    """Private responses: cacheable by the user's browser only, and always revalidated."""

    cache_control = "private, no-cache"

    def send_task(self, task: tasks.Task) -> None:
        """Respond with a task and a strong ETag, which changes with each update because ``updated_at`` does."""
        self.etag = f'"{task["updated_at"]}-{tasks.FORM}"'
        if self.request.method not in ("GET", "HEAD"):  # for these, Tornado sets it and checks If-None-Match
            self.set_etag_header()
        self.send_json({"task": task})


class TaskListHandler(TaskHandler):
    """``/api/tasks``, ``/tasks``."""

    @Operation(
        name="listTasks",
        response="{contract}/task_list.json",
        query=QUERY,
        request_headers=("If-None-Match",),
        headers=("Link", "ETag"),
    )
    async def get(self) -> None:
        """List the user's tasks, newest first (FR-018 to FR-022).

        With `page` or `per_page`, the response is one page with `pagination`, and `Link` has the paths of other pages.
        A page past the last one is empty. Without either parameter, the todo contract returns every task, and the
        tasks contract returns page 1.
        """
        if not self.contract.always_pages and not self.request.query_arguments.keys() & QUERY.keys():
            return await self.send_all()
        page = self.query_number("page", 1)
        per_page = self.query_number("per_page", 20)
        found, total = await tasks.list_page(self.database, self.user_id, page, per_page)
        pages = math.ceil(total / per_page)
        self.set_header("Link", page_links(self.request.path, page, per_page, pages))
        pagination = {"page": page, "per_page": per_page, "total": total, "pages": pages}
        return self.send_json({"tasks": found, "pagination": pagination})

    async def send_all(self) -> None:
        """Respond with every task; a long list is sent in pieces, at the client's pace and without an ETag."""
        limit = SHORT_LIST + 1
        batch = await tasks.list_after(self.database, self.user_id, None, limit)
        if len(batch) < limit:
            self.send_json({"tasks": batch})
            return
        self.set_header("Cache-Control", self.cache_control)
        separator = b'{"tasks":['
        while batch and self.request.method != "HEAD":
            piece = separator + orjson.dumps(batch)[1:-1]
            last, count = batch[-1], len(batch)
            batch.clear()  # frees memory while the piece is being sent
            self.write(piece)
            await self.flush()
            if count == limit:
                limit = max(MIN_PIECE, min(MAX_PIECE, PIECE_BYTES * count // len(piece)))
                batch = await tasks.list_after(self.database, self.user_id, last, limit)
            separator = b","
        await self.flush()  # for HEAD: finish() would compute an ETag before it sends the headers
        self.finish(b"]}")

    @Operation(
        name="createTask",
        body="{contract}/create_task.json",
        request_headers=("Idempotency-Key",),
        status=201,
        response="task_response.json",
        headers=("ETag", "Idempotency-Replayed", "Location"),
        errors=(IdempotencyKeyReused(),),
    )
    async def post(self) -> None:
        """Create a task (FR-023 to FR-029).

        The task belongs to the user of the token. Properties that are not in the schema are ignored.
        """
        body = await self.json_body()
        title, description, key = body["title"].strip(), body.get("description"), self.idempotency_key()
        try:
            task, replayed = await tasks.create(self.database, self.user_id, title, description, key)
        except ForeignKeyViolation:
            raise self.reject_token("unknown_user") from None
        if replayed:
            self.set_header("Idempotency-Replayed", "true")
        self.set_header("Location", f"{self.request.path}/{task['id']}")
        self.send_task(task)

    def idempotency_key(self) -> str | None:
        """Return the ``Idempotency-Key``, or None.

        Raises:
            ValidationFailed: if the header is repeated, or is not 1 to 255 visible ASCII characters.
        """
        values = self.request.headers.get_list("Idempotency-Key")
        if not values:
            return None
        if len(values) > 1 or not re.fullmatch("[!-~]{1,255}", values[0]):
            message = "Idempotency-Key must be one header of 1 to 255 visible ASCII characters"
            raise ValidationFailed([{"field": "Idempotency-Key", "message": message}])
        return values[0]

    def query_number(self, name: str, default: int) -> int:
        """Return a query parameter: its last value if it is repeated, or the default if it is absent.

        Raises:
            ValidationFailed: if the value is not a whole number from 1 to the parameter's maximum.
        """
        values = self.request.query_arguments.get(name)
        if values is None:
            return default
        # int() alone would accept spaces, underscores and the digits of every script.
        if not re.fullmatch(rb"[0-9]{1,9}", values[-1]) or not 1 <= int(values[-1]) <= QUERY[name]:
            raise ValidationFailed([out_of_range(name, QUERY[name])])
        return int(values[-1])


class TaskItemHandler(TaskHandler):
    """``/api/tasks/{id}``, ``/tasks/{id}``."""

    @Operation(
        name="getTask",
        request_headers=("If-None-Match",),
        response="task_response.json",
        headers=("ETag",),
        errors=ITEM_ERRORS,
    )
    async def get(self, path_id: str) -> None:
        """Get a task.

        The response is 403 for another user's task, and 404 for an id that is not a UUID.
        """
        self.send_task(await tasks.get(self.database, self.user_id, parse_task_id(path_id)))

    @Operation(
        name="updateTask",
        body="{contract}/update_task.json",
        request_headers=CONDITIONS,
        response="task_response.json",
        headers=("ETag",),
        errors=(*ITEM_ERRORS, TaskChanged()),
    )
    async def put(self, path_id: str) -> None:
        """Update a task (FR-030 to FR-037).

        Only the properties in the body change. `updated_at` always moves forward, even if the body is `{}`.
        """
        values = await self.json_body()
        if "title" in values:
            values["title"] = values["title"].strip()
        task_id, condition = parse_task_id(path_id), self.condition()
        self.send_task(await tasks.update(self.database, self.user_id, task_id, values, condition))

    @Operation(name="deleteTask", request_headers=CONDITIONS, status=204, errors=(*ITEM_ERRORS, TaskChanged()))
    async def delete(self, path_id: str) -> None:
        """Delete a task (FR-038 to FR-042).

        The deletion is permanent.
        """
        await tasks.delete(self.database, self.user_id, parse_task_id(path_id), self.condition())

    def condition(self) -> tasks.Condition | None:
        """Return the precondition in ``If-Match`` and ``If-None-Match``, or None (RFC 9110 section 13.2.2)."""
        match, none_match = self.request.headers.get("If-Match"), self.request.headers.get("If-None-Match", "")
        if "*" in [tag.strip(" \t") for tag in none_match.split(",")]:  # even in a list of tags, where * is invalid
            return tasks.Condition(set())
        refused = tagged_times(none_match, ignored="W/")  # weak comparison (RFC 9110 section 13.1.2)
        if match in (None, "*"):
            return tasks.Condition(refused, negated=True) if refused else None
        return tasks.Condition(tagged_times(match) - refused)


def parse_task_id(text: str) -> str:
    """Return a task id in canonical form; raise ``TaskNotFound`` if it is not a UUID."""
    task_id = parse_uuid(text)
    if task_id is None:
        raise TaskNotFound
    return task_id


def tagged_times(tags: str, ignored: str = "") -> set[str]:
    """Return the ``updated_at`` encoded in each of these ETags, skipping those that no task can have."""
    times = set()
    for tag in tags.split(","):
        if match := ETAG.fullmatch(tag.strip(" \t").removeprefix(ignored)):
            with suppress(ValueError):  # the date does not exist
                times.add(format_time(datetime.fromisoformat(match[1])))
    return times


def page_links(path: str, page: int, per_page: int, pages: int) -> str:
    """Return the ``Link`` header of a page (RFC 8288), with relative targets."""
    last = max(pages, 1)
    targets = {"first": 1, "prev": min(page - 1, last), "next": page + 1, "last": last}
    return ", ".join(
        f'<{path}?page={target}&per_page={per_page}>; rel="{relation}"'
        for relation, target in targets.items()
        if relation in ("first", "last") or 1 <= target <= last
    )
