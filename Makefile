# `make` alone prints what there is. Everything happens in .venv, made by a Python of 3.11 or later: make PYTHON=python3.13
PYTHON ?= python3
INSTALL = -m pip --quiet --disable-pip-version-check install
PIP = .venv/bin/python $(INSTALL)
# Most tests of e2e and faults wait; those that measure latencies are marked alone. A file stays on one worker.
IN_TWO = --numprocesses=2 --dist=loadfile
TEST = -m pytest --numprocesses=auto --maxprocesses=4 $(ARGS)

.PHONY: help run test coverage mutants e2e faults bench check dist lock schema conformance

help:
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: .venv/run .env ## serve on http://localhost:8000, on a SQLite file; PORT=8001 serves on another port
	@exec .venv/bin/python run.py

test: .venv/test ## run every test, on SQLite and on PostgreSQL
	.venv/bin/python $(TEST)

coverage: .venv/test ## run every test, and list the lines of server/ that none reaches; fail below the floor in setup.cfg
	.venv/bin/coverage erase
	.venv/bin/coverage run $(TEST)
	.venv/bin/coverage combine --quiet
	.venv/bin/coverage report

mutants: .venv/test ## apply each small breaking change of tests/mutants/ to a copy, and expect a failed test; MUTANTS=01-token-at-exp selects one
	.venv/bin/python -m tests.support.mutants $(MUTANTS)

e2e: .venv/e2e ## test with a browser, generated clients and other third-party tools, and many processes behind nginx
	.venv/bin/python -m pytest tests/e2e $(IN_TWO) $(ARGS)

faults: .venv/faults ## break the server's parts under load, and check what it promises
	.venv/bin/python -m pytest tests/faults $(IN_TWO) $(ARGS)

bench: .venv/bench ## compare with peers and a baseline, and write docs/performance.md; QUICK=1 only checks that it works
	PYTHONWARNINGS="ignore:XDG_RUNTIME_DIR is not set" .venv/bin/python -m benchmarks.run

check: .venv/check ## lint, check the format, the types, the spelling, and the files of .github/ and deploy/compose.yaml
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/codespell --dictionary=- --dictionary=tests/denylist.txt
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml

dist: .venv/check ## build the wheel and the sdist into dist/, install the wheel into an empty environment, and try it
	rm -rf dist
	.venv/bin/python -m build --quiet
	.venv/bin/python -m venv --clear .venv/wheel
	.venv/wheel/bin/python $(INSTALL) --require-hashes --requirement requirements.txt
	.venv/wheel/bin/python $(INSTALL) --no-deps dist/*.whl
	.venv/bin/python -m pytest tests/dist $(ARGS)

lock: .venv/check ## write requirements.txt anew from setup.cfg
	.venv/bin/uv pip compile setup.cfg --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command 'make lock' --quiet --output-file requirements.txt $(ARGS)

schema: .venv/run ## write sql/schema.sql anew from the migrations
	.venv/bin/alembic upgrade head --sql > sql/schema.sql

conformance: .venv/test ## write the test files into docs/conformance.md anew from the tests' markers
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

.venv/bench: .venv/test requirements.txt benchmarks/install benchmarks/peers/requirements.txt benchmarks/peers/fastify/package.json
	sh benchmarks/install
	@touch $@

.venv/check: .venv/test
	$(PIP) --editable '.[test,e2e,check]'
	@touch $@
