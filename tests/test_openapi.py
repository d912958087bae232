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
from tornado.ioloop import IOLoop
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from server.api.contracts import TASKS, TODO
from server.api.schemas import SCHEMAS
from server.handlers.base import PrivateHandler
from server.handlers.docs import FILES
from server.routes import ROUTES
from tests.conftest import on_one_database, run
from tests.support.client import Client

VERBS = ("get", "post", "put", "delete")
pytestmark = on_one_database


async def fetch(client: Client, path: str, **headers: str) -> HTTPResponse:
    """Get a response that any cache may keep but must revalidate, or a redirection."""
    request = HTTPRequest(f"http://127.0.0.1:{client.port}{path}", headers=headers, follow_redirects=False)
    response = await SimpleAsyncHTTPClient().fetch(request, raise_error=False)
    assert response.headers["Vary"] == "Origin"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == ("no-store" if response.code == 302 else "no-cache")
    return response


@pytest.fixture
def document(io_loop: IOLoop, client: Client) -> Any:
    return json.loads(run(io_loop, fetch(client, "/openapi.json")).body)


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for verbs in document["paths"].values() for operation in verbs.values()]


def test_document_is_valid_openapi(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_every_operation_is_documented_for_its_contract(document: dict[str, Any]) -> None:
    for route in ROUTES:
        if route.contract is None:
            continue
        methods = {verb for verb in VERBS if verb.upper() in route.handler.allowed_methods}
        assert document["paths"][route.pattern].keys() == methods
        for verb, operation in document["paths"][route.pattern].items():
            assert operation["tags"] == [route.contract.name]
            assert operation["security"] == ([{"token": []}] if issubclass(route.handler, PrivateHandler) else [])
            assert {"403", "413", "500"} <= set(operation["responses"])
            assert "requestBody" in operation or verb in ("get", "delete")


def test_operations_have_unique_names(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document)]
    assert len(names) == len(set(names))
    assert {"signUp", "logIn", "listTasks", "createTask", "getTask", "updateTask", "deleteTask"} < set(names)
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)*", name) for name in names)


def test_everything_has_a_description_and_bodies_have_examples(document: dict[str, Any]) -> None:
    assert all(tag["description"] for tag in document["tags"])
    for operation in operations(document):
        assert operation["summary"]
        responses = operation["responses"].values()
        headers = [header for response in responses for header in response["headers"].values()]
        for part in (operation, *operation["parameters"], *responses, *headers):
            assert part["description"]
        for part in (*responses, operation.get("requestBody", {})):
            for body in part.get("content", {}).values():
                assert {"example", "examples"} & body.keys()


def test_errors_have_examples_of_their_bodies(document: dict[str, Any]) -> None:
    examples = {
        status: [example["value"]["error"] for example in response["content"]["application/json"]["examples"].values()]
        for status, response in document["paths"]["/api/tasks/{id}"]["put"]["responses"].items()
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


def test_every_regular_expression_engine_compiles_the_patterns(document: dict[str, Any]) -> None:
    patterns = {pattern for part in objects(document) for pattern in (part.get("pattern"), *part.get("x-patterns", ()))}
    patterns.discard(None)
    assert len(patterns) >= 4
    for pattern in patterns:
        assert "\\u" not in pattern
        for compile_pattern in (re.compile, re2.compile, pcre2.compile):
            compile_pattern(pattern)


def test_client_generators_understand_the_schemas(document: dict[str, Any]) -> None:
    for part in objects(document):
        assert not {"oneOf", "anyOf", "allOf", "errorMessage", "$schema"} & part.keys()
        assert not {"pattern", "format"} <= part.keys()
        assert "$ref" not in part or set(part) == {"$ref"}
        assert "const" not in part or "type" in part
    assert "servers" not in document
    assert "Error" not in document["components"]["schemas"]  # hides the built-in type of that name


@pytest.mark.requirement("FR-054")
def test_document_has_every_schema(document: dict[str, Any]) -> None:
    components = document["components"]["schemas"]
    assert len(components) == len(SCHEMAS)
    assert {name.split("/")[0] for name in SCHEMAS if "/" in name} == {TODO.name, TASKS.name}
    title = dict(SCHEMAS["todo/create_task.json"]["properties"]["title"])
    del title["errorMessage"]
    assert components["TodoCreateTask"]["properties"]["title"] == title
    got = document["paths"]["/api/tasks/{id}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    component = got["$ref"].removeprefix("#/components/schemas/")
    assert components[component]["properties"] == {"task": {"$ref": "#/components/schemas/Task"}}


async def test_root_redirects_to_the_page(client: Client) -> None:
    response = await fetch(client, "/")
    assert (response.code, response.headers["Location"], response.body) == (302, "/docs", b"")


async def test_page_loads_only_files_of_the_server(client: Client) -> None:
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
        again = await fetch(client, f"/{name}", **{"If-None-Match": file.headers["ETag"]})
        assert (again.code, again.body) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "LICENSE-swagger-ui", "..%2Fapp.py", "%2e%2e", "%00"])
async def test_no_other_file_is_served(client: Client, name: str) -> None:
    response = await client.request("GET", f"/docs/{name}")
    assert (response.status, response.error) == (404, "Not found")
