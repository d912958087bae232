# `make` alone lists the commands. They use .venv, created with Python 3.11 or later: make PYTHON=python3.13 selects it
PYTHON ?= python3
INSTALL = -m pip --quiet --disable-pip-version-check install
PIP = .venv/bin/python $(INSTALL)
# Most tests in e2e and faults mostly wait, except those marked `alone`. All tests of a file run on one worker.
IN_TWO = --numprocesses=2 --dist=loadfile
TEST = -m pytest --numprocesses=auto --maxprocesses=4 $(ARGS)

.PHONY: help run test coverage mutants e2e faults bench check dist lock schema conformance

help:
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: .venv/run .env ## start the server on http://localhost:8000 with a SQLite file; PORT=8001 selects another port
	@exec .venv/bin/python run.py

test: .venv/test ## run the tests, on SQLite and on PostgreSQL
	.venv/bin/python $(TEST)

coverage: .venv/test ## run the tests, and list the lines of server/ that no test reaches; fail below the limit in setup.cfg
	.venv/bin/coverage erase
	.venv/bin/coverage run $(TEST)
	.venv/bin/coverage combine --quiet
	.venv/bin/coverage report

mutants: .venv/test ## check that a test fails with each change in tests/mutants/; MUTANTS=01-token-at-exp selects one
	.venv/bin/python -m tests.support.mutants $(MUTANTS)

e2e: .venv/e2e ## test with a browser, generated clients and other third-party tools, and many processes behind nginx
	.venv/bin/python -m pytest tests/e2e $(IN_TWO) $(ARGS)

faults: .venv/faults ## break the server's parts under load, and check the guarantees
	.venv/bin/python -m pytest tests/faults $(IN_TWO) $(ARGS)

bench: .venv/bench ## compare the server with others, and write docs/performance.md; QUICK=1 only checks that the benchmark works
	PYTHONWARNINGS="ignore:XDG_RUNTIME_DIR is not set" .venv/bin/python -m benchmarks.run

check: .venv/check ## lint, and check the format, the types, the spelling, the workflows, dependabot.yml and the compose file
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/codespell --dictionary=- --dictionary=tests/denylist.txt
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml

dist: .venv/check ## build the wheel and the sdist into dist/, and test the wheel in an empty environment
	rm -rf dist
	.venv/bin/python -m build --quiet
	.venv/bin/python -m venv --clear .venv/wheel
	.venv/wheel/bin/python $(INSTALL) --require-hashes --requirement requirements.txt
	.venv/wheel/bin/python $(INSTALL) --no-deps dist/*.whl
	.venv/bin/python -m pytest tests/dist $(ARGS)

lock: .venv/check ## generate requirements.txt from setup.cfg
	.venv/bin/uv pip compile setup.cfg --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command 'make lock' --quiet --output-file requirements.txt $(ARGS)

schema: .venv/run ## generate sql/schema.sql from the migrations
	.venv/bin/alembic upgrade head --sql > sql/schema.sql

conformance: .venv/test ## update the test files in docs/conformance.md from the tests' markers
	.venv/bin/python -m tests.support.conformance

.env:
	@sed "s/^BETTER_AUTH_SECRET=$$/&$$($(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(32))')/" .env.example > .env

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is too old. Python 3.11 or later is needed: make PYTHON=python3.13 run")'
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/run: requirements.txt | .venv/bin/python
	$(PIP) --require-hashes --requirement requirements.txt
	@touch $@

.venv/test: .venv/run setup.cfg
	$(PIP) --editable '.[test]'
	@touch $@

.venv/e2e: .venv/test tests/e2e/install tests/e2e/node/package.json
	$(PIP) --editable '.[test,e2e]'
	sh tests/e2e/install
	@touch $@

.venv/faults: .venv/test tests/faults/install
	sh tests/faults/install
	@touch $@

.venv/bench: .venv/test benchmarks/install benchmarks/peers/requirements.txt benchmarks/peers/fastify/package.json
	sh benchmarks/install
	@touch $@

.venv/check: .venv/test
	$(PIP) --editable '.[test,e2e,check]'
	@touch $@
