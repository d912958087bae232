"""The published API: the document is one, it tells what the server does, and its page is served by us alone."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pcre2
import pytest
import re2
from openapi_spec_validator import OpenAPIV31SpecValidator
from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from server.api.contracts import TASKS, TODO
from server.api.openapi import build
from server.api.schemas import SCHEMAS
from server.handlers.base import PrivateHandler
from server.handlers.docs import FILES
from server.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.client import Client

VERBS = ("get", "post", "put", "delete")


@pytest.fixture
def document() -> dict[str, Any]:
    return build()


async def fetch(client: Client, path: str, **headers: str) -> HTTPResponse:
    request = HTTPRequest(f"http://127.0.0.1:{client.port}{path}", headers=headers, follow_redirects=False)
    return await SimpleAsyncHTTPClient().fetch(request, raise_error=False)


def test_the_document_is_an_openapi_document(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(json.loads(json.dumps(document))).validate()


def test_every_operation_is_documented_for_its_contract(document: dict[str, Any]) -> None:
    for route in ROUTES:
        if route.contract is None:
            continue
        for verb in VERBS:
            if verb.upper() not in route.handler.allowed_methods:
                assert verb not in document["paths"][route.pattern]
                continue
            operation = document["paths"][route.pattern][verb]
            assert operation["tags"] == [route.contract.name]
            assert operation["security"] == ([{"token": []}] if issubclass(route.handler, PrivateHandler) else [])
            assert {"403", "413", "500"} <= set(operation["responses"])
            assert "requestBody" in operation or verb in ("get", "delete")


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for verbs in document["paths"].values() for operation in verbs.values()]
    assert len(names) == len(set(names))
    assert {"signUp", "logIn", "listTasks", "createTask", "getTask", "updateTask", "deleteTask"} < set(names)
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)*", name) for name in names)


def test_operations_parameters_headers_and_tags_are_described_and_bodies_have_examples(
    document: dict[str, Any],
) -> None:
    assert all(tag["description"] for tag in document["tags"])
    for operation in (operation for verbs in document["paths"].values() for operation in verbs.values()):
        assert operation["summary"]
        assert operation["description"]
        described = [*operation["parameters"], *operation["responses"].values()]
        described += [header for response in operation["responses"].values() for header in response["headers"].values()]
        assert all(part["description"] for part in described)
        bodies = [response["content"] for response in operation["responses"].values() if "content" in response]
        bodies += [operation["requestBody"]["content"]] if "requestBody" in operation else []
        assert all({"example", "examples"} & body["application/json"].keys() for body in bodies)


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Give each object in a document."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts(part)


def test_patterns_are_those_of_every_regular_expression_engine(document: dict[str, Any]) -> None:
    patterns = {pattern for part in parts(document) for pattern in (part.get("pattern"), *part.get("x-patterns", ()))}
    patterns.discard(None)
    assert len(patterns) >= 4
    for pattern in patterns:
        assert "\\u" not in pattern
        for compile_pattern in (re.compile, re2.compile, pcre2.compile):
            compile_pattern(pattern)


def test_schemas_are_within_what_client_generators_read(document: dict[str, Any]) -> None:
    for part in parts(document):
        assert not {"oneOf", "anyOf", "allOf", "errorMessage", "$schema"} & part.keys()
        assert not {"pattern", "format"} <= part.keys()
        assert "$ref" not in part or set(part) == {"$ref"}
        assert "const" not in part or "type" in part
    assert "servers" not in document
    assert "Error" not in document["components"]["schemas"]


@pytest.mark.requirement("FR-054")
def test_schemas_are_in_the_document_as_they_are(document: dict[str, Any]) -> None:
    components = document["components"]["schemas"]
    assert len(components) == len(SCHEMAS)
    title = SCHEMAS["todo/create_task.json"]["properties"]["title"]
    assert components["TodoCreateTask"]["properties"]["title"] == {
        key: value for key, value in title.items() if key != "errorMessage"
    }
    assert components["TaskResponse"]["properties"] == {"task": {"$ref": "#/components/schemas/Task"}}
    assert {name.split("/")[0] for name in SCHEMAS if "/" in name} == {TODO.name, TASKS.name}


def test_every_error_comes_with_an_example_of_its_body(document: dict[str, Any]) -> None:
    responses = document["paths"]["/api/tasks/{id}"]["put"]["responses"]
    examples = {
        status: [example["value"]["error"] for example in response["content"]["application/json"]["examples"].values()]
        for status, response in responses.items()
        if status >= "400"
    }
    assert examples["401"] == ["Unauthorized"]
    assert examples["403"] == ["Access denied", "HTTPS is required"]
    assert examples["404"] == ["Task not found"]
    assert examples["413"] == ["Request body too large"]
    assert examples["422"] == ["Request body is not valid JSON"]
    assert examples["500"] == ["Internal server error", "Service temporarily unavailable"]


def test_the_description_names_the_settings_that_limit_requests(document: dict[str, Any]) -> None:
    assert {"MAX_BODY_BYTES", "AUTH_RATE_LIMIT"} <= set(re.findall("`([A-Z_]+)`", document["info"]["description"]))
    assert {"429", "403"} <= document["paths"]["/auth/login"]["post"]["responses"].keys()


async def test_the_document_is_served_with_an_entity_tag(client: Client, document: dict[str, Any]) -> None:
    response = await fetch(client, "/openapi.json")
    assert (response.code, response.headers["Content-Type"]) == (200, "application/json")
    assert json.loads(response.body) == json.loads(json.dumps(document))
    again = await fetch(client, "/openapi.json", **{"If-None-Match": response.headers["ETag"]})
    assert (again.code, again.body) == (304, b"")


async def test_the_root_leads_to_the_page(client: Client) -> None:
    response = await fetch(client, "/")
    assert (response.code, response.headers["Location"], response.body) == (302, "/docs", b"")


async def test_the_page_loads_nothing_from_elsewhere(client: Client) -> None:
    response = await fetch(client, "/docs")
    page = response.body.decode()
    assert (response.code, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    loaded = re.findall(r'(?:src|href)="(?!data:)([^"]*)"', page)
    assert {name.removeprefix("docs/") for name in loaded} == set(FILES) - {"index.html"}
    for name in loaded:
        part = await fetch(client, f"/{name}")
        assert part.code == 200
        assert part.headers["Content-Type"] == {"css": "text/css", "js": "text/javascript"}[name.rpartition(".")[2]]
        assert (await fetch(client, f"/{name}", **{"If-None-Match": part.headers["ETag"]})).code == 304


@pytest.mark.parametrize("name", ["nothing.js", "LICENSE-swagger-ui", "..%2Fapp.py", "%2e%2e", "__init__.py", "%00"])
async def test_no_other_file_is_served(client: Client, name: str) -> None:
    response = await client.request("GET", f"/docs/{name}")
    assert (response.status, response.error) == (404, "Not found")
