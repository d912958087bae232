"""The client of openapi-generator's ``python``."""

import json
import os
import sys
import uuid
from collections.abc import Callable
from typing import Any

from openapi_client import ApiClient, ApiException, Configuration, TodoApi, TodoCreateTask, TodoRegister, TodoUpdateTask


def failure(function: Callable[..., Any], *arguments: Any, **options: Any) -> ApiException:
    try:
        function(*arguments, **options)
    except ApiException as error:
        return error
    raise AssertionError(function)


configuration = Configuration(host=os.environ["API_URL"])
api = TodoApi(ApiClient(configuration))
unauthorized = failure(api.list_tasks)
email = f"{uuid.uuid4()}@example.com"
session = api.sign_up(TodoRegister(email=email, password="correct horse"))
configuration.access_token = session.token

response = api.create_task_with_http_info(TodoCreateTask(title="Buy milk"))
created = response.data.task
(etag,) = (value for name, value in response.headers.items() if name.lower() == "etag")
api.create_task(TodoCreateTask(title="Read", description="Slowly"))
everything = api.list_tasks()
page = api.list_tasks(page=2, per_page=1)
changes = TodoUpdateTask(description="2 l", completed=True)
updated = api.update_task(created.id, changes, if_match=etag).task
stale = failure(api.update_task, created.id, changes, if_match=etag)
invalid = failure(api.create_task, TodoCreateTask(title=" "))
deleted = api.delete_task_with_http_info(created.id)
gone = failure(api.get_task, created.id)

json.dump(
    {
        "signedUp": session.user.email == email,
        "created": [created.title, created.description, created.completed],
        "all": [[task.title for task in everything.tasks], everything.pagination],
        "page": [[task.title for task in page.tasks], page.pagination.page, page.pagination.pages],
        "updated": [updated.title, updated.description, updated.completed],
        "newer": updated.updated_at > created.updated_at,
        "stale": [stale.status, stale.data.error],
        "invalid": [invalid.status, invalid.data.error, invalid.data.details[0].var_field],
        "unauthorized": [unauthorized.status, unauthorized.data.error],
        "deleted": deleted.status_code,
        "gone": [gone.status, gone.data.error],
    },
    sys.stdout,
)
