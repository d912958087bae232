"""The client of openapi-python-client."""

import json
import os
import sys

from todo_client import AuthenticatedClient, Client
from todo_client.api.todo import create_task, delete_task, get_task, list_tasks, sign_up, update_task
from todo_client.models import ErrorResponse, Session, TaskResponse, TodoCreateTask, TodoRegister, TodoTaskList
from todo_client.models import TodoUpdateTask as Changes

url = os.environ["API_URL"]
session = sign_up.sync(client=Client(url), body=TodoRegister("alice@example.com", "correct horse"))
assert isinstance(session, Session)
client = AuthenticatedClient(url, session.token)
unauthorized = list_tasks.sync_detailed(client=AuthenticatedClient(url, "x"))

created = create_task.sync(client=client, body=TodoCreateTask("Buy milk"))
assert isinstance(created, TaskResponse)
everything = list_tasks.sync(client=client)
page = list_tasks.sync(client=client, page=2, per_page=5)
assert isinstance(everything, TodoTaskList)
assert isinstance(page, TodoTaskList)
assert page.pagination
changes = Changes(description="2 l", completed=True)
updated = update_task.sync(created.task.id, client=client, body=changes)
assert isinstance(updated, TaskResponse)
stale = update_task.sync_detailed(created.task.id, client=client, body=changes, if_match='"old"')
invalid = create_task.sync_detailed(client=client, body=TodoCreateTask(" "))
delete_task.sync(created.task.id, client=client)
gone = get_task.sync_detailed(created.task.id, client=client)
assert isinstance(unauthorized.parsed, ErrorResponse)
assert isinstance(stale.parsed, ErrorResponse)
assert isinstance(invalid.parsed, ErrorResponse)
assert invalid.parsed.details
assert isinstance(gone.parsed, ErrorResponse)

json.dump(
    {
        "created": [created.task.title, created.task.description, created.task.completed],
        "all": [[task.title for task in everything.tasks], everything.pagination or None],
        "page": [page.tasks, page.pagination.page, page.pagination.per_page],
        "updated": [updated.task.title, updated.task.description, updated.task.completed],
        "stale": [stale.status_code, stale.parsed.error],
        "invalid": [invalid.status_code, invalid.parsed.error, invalid.parsed.details[0].field],
        "unauthorized": [unauthorized.status_code, unauthorized.parsed.error],
        "gone": [gone.status_code, gone.parsed.error],
    },
    sys.stdout,
)
