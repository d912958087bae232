"""An HTTP client that validates each response against the OpenAPI document, and checks the headers that all have."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from tornado.httpclient import HTTPRequest
from tornado.httputil import HTTPHeaders
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from server.api.contracts import TASKS, TODO, Contract
from server.api.openapi import HEADERS
from server.api.schemas import SCHEMAS

PASSWORD = "Correct-horse-7"
# Documented for a status, but not in all its responses: long lists have no ETag, only pages have Link, only replays
# have Idempotency-Replayed, and only overload has Retry-After.
OPTIONAL_HEADERS = {"ETag", "Idempotency-Replayed", "Link", "Retry-After"}
CHALLENGES = {'Bearer realm="todo-api"', 'Bearer realm="todo-api", error="invalid_token"'}
NAME = "urn:document"
ERROR = Draft202012Validator(SCHEMAS["error_response.json"])


class Document:
    """The server's OpenAPI document, which responses are validated against."""

    def __init__(self, value: dict[str, Any]) -> None:
        self._registry: Registry[Any] = Registry().with_resource(NAME, DRAFT202012.create_resource(value))
        self._operations = [
            (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), method.upper(), operation["responses"])
            for path, operations in value["paths"].items()
            for method, operation in operations.items()
        ]

    def check(self, method: str, path: str, response: Response) -> None:
        """Check that the response of a documented operation has a documented status, headers and body."""
        for pattern, known_method, responses in self._operations:
            if pattern.fullmatch(path.partition("?")[0]) and method == known_method:
                documented = responses.get(str(response.status))
                assert documented, f"the document has no response {response.status} of {method} {path}: {response.body}"
                assert set(documented["headers"]) - OPTIONAL_HEADERS <= {
                    name for name in HEADERS if name in response.headers
                }
                content = documented.get("content")
                assert (response.body is None) == (content is None)
                if content is not None:
                    reference = NAME + content["application/json"]["schema"]["$ref"]
                    Draft202012Validator({"$ref": reference}, registry=self._registry).validate(response.body)


@dataclass(frozen=True)
class Paths:
    """The paths of a contract."""

    contract: Contract
    register: str
    login: str
    tasks: str


PATHS = [
    Paths(TODO, "/api/auth/signup", "/api/auth/login", "/api/tasks"),
    Paths(TASKS, "/auth/register", "/auth/login", "/tasks"),
]


@dataclass(frozen=True)
class Response:
    """A checked response; ``body`` is its JSON, or None if it is empty."""

    status: int
    headers: HTTPHeaders
    body: Any

    @property
    def error(self) -> str:
        text: str = self.body["error"]
        return text

    @property
    def outcome(self) -> tuple[int, str]:
        """The status and the message of an error."""
        return self.status, self.error


class Client:
    """Sends requests to a server on a port of this machine."""

    def __init__(self, port: int, document: Document | None = None) -> None:
        self.port = port
        self._document = document
        self._http = SimpleAsyncHTTPClient(force_instance=True, max_clients=200)

    def close(self) -> None:
        self._http.close()

    @staticmethod
    def new_email(name: str) -> str:
        """Return an email that is not registered."""
        return f"{name}-{secrets.token_hex(6)}@example.com"

    async def request(
        self,
        method: str,
        path: str,
        value: Any = ...,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Response:
        """Send a request with ``value`` as its JSON body, or ``body`` as it is, and check the response."""
        sent = dict(headers or {})
        if value is not ...:
            body = json.dumps(value).encode()
            sent.setdefault("Content-Type", "application/json")
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        response = await self.send(method, path, sent, body)
        if self._document is not None:
            self._document.check(method, path, response)
        return response

    async def send(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Response:
        """Send a request, and return its response, after checking what all responses have in common."""
        received = await self._http.fetch(
            HTTPRequest(
                f"http://127.0.0.1:{self.port}{path}",
                method,
                headers,
                body,
                allow_nonstandard_methods=True,
                follow_redirects=False,
                decompress_response=False,
                request_timeout=30,
            ),
            raise_error=False,
        )
        return check(method, received.code, received.headers, received.body or b"")


def check(method: str, status: int, headers: HTTPHeaders, body: bytes) -> Response:
    """Check what all responses of the server have in common, and return the response."""
    assert headers["X-Request-ID"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Vary"] == "Origin"
    assert headers["Cache-Control"] in ("no-store", "private, no-cache")
    assert (status == 401) == (headers.get("WWW-Authenticate") in CHALLENGES)
    assert headers.get("Server") in (None, "nginx")  # nginx adds it
    if method == "HEAD" or status in (204, 304):
        assert body == b""
        return Response(status, headers, None)
    assert headers["Content-Type"] == "application/json"
    if headers.get("Transfer-Encoding") != "chunked":
        assert int(headers["Content-Length"]) == len(body)
    value = json.loads(body)
    if status >= 400:
        assert ERROR.is_valid(value), value
        assert headers["Cache-Control"] == "no-store"
        assert "ETag" not in headers
    return Response(status, headers, value)


@dataclass(frozen=True)
class Person:
    """A user with a token."""

    client: Client
    id: str
    email: str
    token: str

    @classmethod
    async def register(cls, client: Client, name: str) -> Person:
        email = client.new_email(name)
        response = await client.request("POST", PATHS[0].register, {"email": email, "password": PASSWORD})
        assert response.status == 201
        return cls(client, response.body["user"]["id"], email, response.body["token"])

    async def request(
        self, method: str, path: str, value: Any = ..., *, headers: Mapping[str, str] | None = None
    ) -> Response:
        return await self.client.request(method, path, value, token=self.token, headers=headers)

    async def create(self, paths: Paths, title: str = "Buy groceries", **values: Any) -> dict[str, Any]:
        """Create a task and return it."""
        response = await self.request("POST", paths.tasks, {"title": title, **values})
        assert response.status == 201
        task: dict[str, Any] = response.body["task"]
        return task

    async def list(self, paths: Paths) -> list[dict[str, Any]]:
        """Return the tasks in the response to a list without query parameters."""
        response = await self.request("GET", paths.tasks)
        assert response.status == 200
        tasks: list[dict[str, Any]] = response.body["tasks"]
        return tasks
