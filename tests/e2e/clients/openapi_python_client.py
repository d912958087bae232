"""The client of openapi-python-client."""

import json
import os
import sys
import uuid

from todo_client import AuthenticatedClient, Client
from todo_client.api.todo import create_task, delete_task, get_task, list_tasks, sign_up, update_task
from todo_client.models import ErrorResponse, Session, TaskResponse, TodoCreateTask, TodoRegister, TodoTaskList
from todo_client.models import TodoUpdateTask as Changes

anonymous = Client(os.environ["API_URL"])
email = f"{uuid.uuid4()}@example.com"
session = sign_up.sync(client=anonymous, body=TodoRegister(email, "correct horse"))
assert isinstance(session, Session)
client = AuthenticatedClient(os.environ["API_URL"], session.token)
unauthorized = list_tasks.sync_detailed(client=AuthenticatedClient(os.environ["API_URL"], "x"))

response = create_task.sync_detailed(client=client, body=TodoCreateTask("Buy milk"))
created, etag = response.parsed, response.headers["ETag"]
assert isinstance(created, TaskResponse)
create_task.sync(client=client, body=TodoCreateTask("Read", "Slowly"))
everything = list_tasks.sync(client=client)
page = list_tasks.sync(client=client, page=2, per_page=1)
assert isinstance(everything, TodoTaskList)
assert isinstance(page, TodoTaskList)
assert page.pagination
changes = Changes(description="2 l", completed=True)
updated = update_task.sync(created.task.id, client=client, body=changes, if_match=etag)
assert isinstance(updated, TaskResponse)
stale = update_task.sync_detailed(created.task.id, client=client, body=changes, if_match=etag)
assert isinstance(stale.parsed, ErrorResponse)
invalid = create_task.sync_detailed(client=client, body=TodoCreateTask(" "))
assert isinstance(invalid.parsed, ErrorResponse)
assert invalid.parsed.details
deleted = delete_task.sync_detailed(created.task.id, client=client)
gone = get_task.sync_detailed(created.task.id, client=client)
assert isinstance(unauthorized.parsed, ErrorResponse)
assert isinstance(gone.parsed, ErrorResponse)

json.dump(
    {
        "signedUp": session.user.email == email,
        "created": [created.task.title, created.task.description, created.task.completed],
        "all": [[task.title for task in everything.tasks], everything.pagination or None],
        "page": [[task.title for task in page.tasks], page.pagination.page, page.pagination.pages],
        "updated": [updated.task.title, updated.task.description, updated.task.completed],
        "newer": updated.task.updated_at > created.task.updated_at,
        "stale": [stale.status_code, stale.parsed.error],
        "invalid": [invalid.status_code, invalid.parsed.error, invalid.parsed.details[0].field],
        "unauthorized": [unauthorized.status_code, unauthorized.parsed.error],
        "deleted": deleted.status_code,
        "gone": [gone.status_code, gone.parsed.error],
    },
    sys.stdout,
)
