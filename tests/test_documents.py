"""README.md agrees with the code, its commands work, and links between the pages lead to files and headings."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from server import errors
from server.api.contracts import TASKS, TODO
from server.api.schemas import SCHEMAS
from server.config import Config
from server.routes import ROUTES
from tests.support.client import Client
from tests.support.processes import PROJECT, run

README = (PROJECT / "README.md").read_text("utf-8")
PAGES = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), PROJECT / "tests" / "README.md"]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in README.splitlines() if line.startswith("|")]
SETTINGS = {cells[0].strip("`"): cells[1].strip("`") for cells in ROWS if re.fullmatch(r"`[A-Z_]+`", cells[0])}


def section(heading: str) -> str:
    """Return the text of README.md below a heading."""
    return README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_every_route_is_in_the_section_of_endpoints() -> None:
    documented = set(re.findall(r"`([A-Z]+ /[^`]*)`", section("Endpoints")))
    methods = {
        f"{method} {route.pattern}"
        for route in ROUTES
        for method in route.handler.allowed_methods
        if method not in ("HEAD", "OPTIONS")
    }
    assert methods == documented


@pytest.mark.parametrize("body", ["create_task", "update_task"])
@pytest.mark.parametrize("field", ["title", "description"])
def test_lengths_in_the_table_are_those_of_the_schemas(field: str, body: str) -> None:
    (cells,) = (cells for cells in ROWS if cells[0] == field)
    documented = [int(re.findall("[0-9]+", cell)[-1]) for cell in cells[1:]]
    assert documented == [
        SCHEMAS[f"{contract.name}/{body}.json"]["properties"][field]["maxLength"] for contract in (TODO, TASKS)
    ]


@pytest.mark.requirement("FR-010", "FR-060")
def test_every_setting_is_documented_with_its_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert list(SETTINGS) == [field.name.upper() for field in fields(Config)]
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    required = [name for name, default in SETTINGS.items() if default == "required"]
    for name, value in zip(required, ("sqlite:///todo.db", "x" * 32, "http://localhost:3000"), strict=True):
        monkeypatch.setenv(name, value)
    defaults = Config.from_environment()
    for name, default in SETTINGS.items():
        if default != "required":
            monkeypatch.setenv(name, default.replace("(empty)", ""))
    assert Config.from_environment() == defaults


@pytest.mark.requirement("FR-050")
def test_every_error_is_in_the_table_of_errors() -> None:
    documented = {(status, cells[1].strip("`")) for cells in ROWS for status in cells[0].split(", ")}
    vocabulary = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.ApiError) and hasattr(value, "status")
    ]
    assert len(vocabulary) > 10
    for error in vocabulary:
        if error not in (errors.ValidationFailed, errors.ClientClosedRequest):
            assert (str(error.status), error.message) in documented


def test_every_reason_to_reject_a_token_is_documented() -> None:
    source = "".join(path.read_text("utf-8") for path in (PROJECT / "server").rglob("*.py"))
    reasons = set(re.findall(r'(?:TokenRejected\(|reject_token\(|jwt\.\w+Error: )"(\w+)"', source))
    documented = re.findall(r"`(\w+)`", section("Tokens from Better Auth").partition("one of these reasons:")[2])
    assert reasons == set(documented)


@pytest.mark.settings(AUTH_RATE_LIMIT="10/minute")
async def test_curl_session_works(client: Client, tmp_path: Path) -> None:
    readme = section("First steps").replace("me@example.com", client.new_email("me"))
    readme = readme.replace("localhost:8000", f"127.0.0.1:{client.port}")
    sign_up, use = re.findall(r"```sh\n([^`]*curl[^`]*)```", readme)
    session = json.loads(await run("sh", "-ec", sign_up, folder=tmp_path))
    use = re.sub("^TOKEN=.*", f"TOKEN={session['token']}", use)
    output = await run("sh", "-ec", use, folder=tmp_path)
    created, listed = json.loads(f"[{output.replace('}{', '},{')}]")
    assert created["task"]["user_id"] == session["user"]["id"]
    assert listed == {"tasks": [created["task"]]}


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_named_tests_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"
    for test in re.findall(r"`((?:e2e/|faults/)?test_\w+\.py)`", text):
        assert (PROJECT / "tests" / test).exists(), test
