"""The OpenAPI document describes what the server does, and its page loads nothing from elsewhere."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pcre2
import pytest
import re2
from openapi_spec_validator import OpenAPIV31SpecValidator
from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from server.api.openapi import build
from server.api.schemas import SCHEMAS
from server.handlers.base import PrivateHandler
from server.handlers.docs import FILES
from server.routes import ROUTES
from tests.conftest import on_one_database
from tests.support.client import Client

DOCUMENT = build()
OPERATIONS = [operation for verbs in DOCUMENT["paths"].values() for operation in verbs.values()]
VERBS = ("get", "post", "put", "delete")


async def fetch(client: Client, path: str, **headers: str) -> HTTPResponse:
    """Get a response that is not JSON of the API, which ``client`` would refuse."""
    request = HTTPRequest(f"http://127.0.0.1:{client.port}{path}", headers=headers, follow_redirects=False)
    response = await SimpleAsyncHTTPClient().fetch(request, raise_error=False)
    assert response.headers["Vary"] == "Origin"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    return response


def test_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_operation_is_documented_for_its_contract() -> None:
    for route in ROUTES:
        if route.contract is None:
            continue
        methods = {verb for verb in VERBS if verb.upper() in route.handler.allowed_methods}
        assert DOCUMENT["paths"][route.pattern].keys() == methods
        for verb, operation in DOCUMENT["paths"][route.pattern].items():
            assert operation["tags"] == [route.contract.name]
            assert operation["security"] == ([{"token": []}] if issubclass(route.handler, PrivateHandler) else [])
            assert {"403", "413", "500"} <= set(operation["responses"])
            assert "requestBody" in operation or verb in ("get", "delete")


def test_operations_have_unique_names() -> None:
    names = {operation["operationId"] for operation in OPERATIONS}
    assert len(names) == len(OPERATIONS)
    assert {"signUp", "logIn", "listTasks", "createTask", "getTask", "updateTask", "deleteTask"} < names
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)*", name) for name in names)


def test_everything_has_a_description_and_bodies_have_examples() -> None:
    assert all(tag["description"] for tag in DOCUMENT["tags"])
    for operation in OPERATIONS:
        assert operation["summary"]
        responses = operation["responses"].values()
        headers = [header for response in responses for header in response["headers"].values()]
        for part in (operation, *operation["parameters"], *responses, *headers):
            assert part["description"]
        for part in (*responses, operation.get("requestBody", {})):
            for body in part.get("content", {}).values():
                assert {"example", "examples"} & body.keys()


def test_errors_have_examples_of_their_bodies() -> None:
    examples = {
        status: [example["value"]["error"] for example in response["content"]["application/json"]["examples"].values()]
        for status, response in DOCUMENT["paths"]["/api/tasks/{id}"]["put"]["responses"].items()
        if status >= "401"
    }
    assert examples == {
        "401": ["Unauthorized"],
        "403": ["Access denied", "HTTPS is required"],
        "404": ["Task not found"],
        "412": ["Task has changed"],
        "413": ["Request body too large"],
        "415": ["Content-Type must be application/json, without Content-Encoding"],
        "422": ["Request body is not valid JSON"],
        "500": ["Internal server error", "Service temporarily unavailable"],
    }


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Give each object in a document."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(part)


def test_every_regular_expression_engine_compiles_the_patterns() -> None:
    patterns = {pattern for part in objects(DOCUMENT) for pattern in (part.get("pattern"), *part.get("x-patterns", ()))}
    patterns.discard(None)
    assert len(patterns) >= 4
    for pattern in patterns:
        assert "\\u" not in pattern
        for compile_pattern in (re.compile, re2.compile, pcre2.compile):
            compile_pattern(pattern)


def test_client_generators_understand_the_schemas() -> None:
    for part in objects(DOCUMENT):
        assert not {"oneOf", "anyOf", "allOf", "errorMessage", "$schema"} & part.keys()
        assert not {"pattern", "format"} <= part.keys()
        assert "$ref" not in part or set(part) == {"$ref"}
        assert "const" not in part or "type" in part
    assert "servers" not in DOCUMENT
    assert "Error" not in DOCUMENT["components"]["schemas"]  # hides the built-in type of that name


@pytest.mark.requirement("FR-054")
def test_document_has_every_schema() -> None:
    components = DOCUMENT["components"]["schemas"]
    assert len(components) == len(SCHEMAS)
    title = dict(SCHEMAS["todo/create_task.json"]["properties"]["title"])
    del title["errorMessage"]
    assert components["TodoCreateTask"]["properties"]["title"] == title
    got = DOCUMENT["paths"]["/api/tasks/{id}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    component = got["$ref"].removeprefix("#/components/schemas/")
    assert components[component]["properties"] == {"task": {"$ref": "#/components/schemas/Task"}}


@on_one_database
async def test_page_loads_only_files_of_the_server(client: Client) -> None:
    root = await fetch(client, "/")
    assert (root.code, root.headers["Location"], root.body) == (302, "/docs", b"")
    page = await fetch(client, "/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    loaded = re.findall(r'(?:src|href)="(?!data:)([^"]*)"', page.body.decode())
    assert {name.removeprefix("docs/") for name in loaded} == set(FILES) - {"index.html"}
    types = {"css": "text/css", "js": "text/javascript", "json": "application/json"}
    for name in (*loaded, "openapi.json"):
        file = await fetch(client, f"/{name}")
        assert (file.code, file.headers["Content-Type"]) == (200, types[name.rpartition(".")[2]])
        assert file.headers["Cache-Control"] == "no-cache"
        again = await fetch(client, f"/{name}", **{"If-None-Match": file.headers["ETag"]})
        assert (again.code, again.body) == (304, b"")
    assert json.loads(file.body) == DOCUMENT


@on_one_database
async def test_no_other_file_is_served(client: Client) -> None:
    for name in ("nothing.js", "LICENSE-swagger-ui", "..%2Fapp.py", "%2e%2e", "%00"):
        assert (await client.request("GET", f"/docs/{name}")).outcome == (404, "Not found")
