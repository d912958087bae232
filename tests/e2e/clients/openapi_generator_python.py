"""The client of openapi-generator's ``python``."""

import json
import os
import sys
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
configuration.access_token = api.sign_up(TodoRegister(email="alice@example.com", password="correct horse")).token

created = api.create_task(TodoCreateTask(title="Buy milk")).task
everything = api.list_tasks()
page = api.list_tasks(page=2, per_page=5)
changes = TodoUpdateTask(description="2 l", completed=True)
updated = api.update_task(created.id, changes).task
stale = failure(api.update_task, created.id, changes, if_match='"old"')
invalid = failure(api.create_task, TodoCreateTask(title=" "))
api.delete_task(created.id)
gone = failure(api.get_task, created.id)

json.dump(
    {
        "created": [created.title, created.description, created.completed],
        "all": [[task.title for task in everything.tasks], everything.pagination],
        "page": [page.tasks, page.pagination.page, page.pagination.per_page],
        "updated": [updated.title, updated.description, updated.completed],
        "stale": [stale.status, stale.data.error],
        "invalid": [invalid.status, invalid.data.error, invalid.data.details[0].var_field],
        "unauthorized": [unauthorized.status, unauthorized.data.error],
        "gone": [gone.status, gone.data.error],
    },
    sys.stdout,
)
