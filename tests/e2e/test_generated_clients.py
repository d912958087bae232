"""Clients generated from the OpenAPI document in four languages use the API, and linters accept the document."""

import asyncio
import json
import os
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from server.api.openapi import build
from tests.support.processes import SETTINGS, run, serving
from tests.support.typescript import NODE

CLIENTS = Path(__file__).parent / "clients"
BIN = NODE / "node_modules" / ".bin"
PYTHON_BIN = Path(sys.executable).parent
JAR = str(files("openapi_generator_cli") / "openapi-generator.jar")
JAVA_PATH = f"{JAR}:/usr/share/java/geronimo-annotation-1.3-spec.jar"  # the generator's jar has Jackson
OPENAPI_GENERATOR = {
    "python": {},
    "typescript-fetch": {},
    "php": {},
    "java": {"library": "native", "openApiNullable": "false"},
}
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
COMMANDS = {
    "hey_api": ["node", "hey_api.mjs"],
    "orval": ["node", "orval.mjs"],
    "typescript_fetch": ["node", "typescript_fetch.mjs"],
    "openapi_python_client": [sys.executable, "openapi_python_client.py"],
    "openapi_generator_python": [sys.executable, "openapi_generator_python.py"],
    "java": ["java", "-cp", f"classes:{JAVA_PATH}", "Main"],
    "php": ["php", "client.php"],
}
pytestmark = [pytest.mark.usefixtures("io_loop"), pytest.mark.timeout(seconds=300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the server's document, and the clients that the generators made of it."""
    folder = tmp_path_factory.mktemp("clients")
    shutil.copytree(CLIENTS, folder, dirs_exist_ok=True)
    for name in ("node_modules", "package.json"):
        (folder / name).symlink_to(NODE / name)
    asyncio.run(generate(folder))
    return folder


async def generate(folder: Path) -> None:
    (folder / "openapi.json").write_text(json.dumps(build()), "utf-8")
    await asyncio.gather(
        generate_with_openapi_generator(folder),
        run(
            *(PYTHON_BIN / "openapi-python-client", "generate", "--path", "openapi.json"),
            *("--meta", "none", "--output-path", "todo_client", "--fail-on-warning"),
            folder=folder,
            environment={"PATH": f"{PYTHON_BIN}:{os.environ['PATH']}"},  # where it finds ruff
        ),
        generate_typescript(folder),
    )
    await asyncio.gather(bundle(folder), compile_java(folder))


async def generate_with_openapi_generator(folder: Path) -> None:
    for name, properties in OPENAPI_GENERATOR.items():
        options = {"generatorName": name, "inputSpec": "openapi.json", "outputDir": name}
        configuration = json.dumps({**options, "additionalProperties": properties})
        (folder / f"generate-{name}.json").write_text(configuration, "utf-8")
    names = [f"generate-{name}.json" for name in OPENAPI_GENERATOR]
    await run("java", "-jar", JAR, "batch", "--fail-fast", *names, folder=folder)


async def generate_typescript(folder: Path) -> None:
    plugins = ("@hey-api/typescript", "@hey-api/sdk", "@hey-api/client-fetch", "zod")
    await run(BIN / "openapi-ts", "-i", "openapi.json", "-o", "hey-api", "-p", *plugins, folder=folder)
    for client in ("fetch", "zod"):
        arguments = ("--input", "openapi.json", "--output", f"orval-{client}.ts", "--client", client)
        await run(BIN / "orval", *arguments, folder=folder)


async def bundle(folder: Path) -> None:
    """Check the types of the programs in TypeScript, and bundle them."""
    sources = [path.name for path in CLIENTS.glob("*.ts")]
    options = "--noEmit --strict --skipLibCheck --target es2022 --module esnext --moduleResolution bundler --types node"
    await run(BIN / "tsc", *options.split(), *sources, folder=folder)
    options = "--bundle --platform=node --format=esm --outdir=. --out-extension:.js=.mjs"
    await run(BIN / "esbuild", *options.split(), *sources, folder=folder)


async def compile_java(folder: Path) -> None:
    sources = [str(path) for path in (folder / "java" / "src" / "main").rglob("*.java")]
    await run("javac", "-nowarn", "-d", "classes", "-cp", JAVA_PATH, "Main.java", *sources, folder=folder)


@pytest.mark.parametrize("name", COMMANDS)
async def test_generated_client_uses_the_api(folder: Path, tmp_path: Path, name: str) -> None:
    async with serving(tmp_path, SETTINGS) as (_, client):
        variables = {"API_URL": f"http://127.0.0.1:{client.port}", "PYTHONPATH": str(folder / "python")}
        output = await run(*COMMANDS[name], folder=folder, environment=variables)
    assert json.loads(output) == {
        "created": ["Buy milk", None, False],
        "all": [["Buy milk"], None],
        "page": [[], 2, 5],
        "updated": ["Buy milk", "2 l", True],
        "stale": [412, "Task has changed"],
        "invalid": [400, "Title is required", "title"],
        "unauthorized": [401, "Unauthorized"],
        "gone": [404, "Task not found"],
    }


@pytest.mark.parametrize(
    "command",
    [
        ("redocly", "lint", "openapi.json", "--config", str(NODE / "redocly.yaml"), "--format", "summary"),
        ("spectral", "lint", "openapi.json", "--ruleset", str(NODE / "spectral.yaml"), "--fail-severity", "hint"),
    ],
    ids=lambda command: command[0],
)
async def test_linter_accepts_the_document(folder: Path, command: tuple[str, ...]) -> None:
    await run(BIN / command[0], *command[1:], folder=folder, environment=QUIET)
