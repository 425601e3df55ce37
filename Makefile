# Every target does its own set-up: `make test` and `make demo` work in a fresh clone.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml $(shell find taskmill runtime schemas producer consumer scheduler console \
	-name '*.py' -o -name '*.avsc' 2>/dev/null)
# Tests run against the installed package, so they leave the source tree out of their path.
PYTEST := $(BIN)/pytest
# Files of tests beside each other, each process with a broker of its own: most of the time is waited
# for sessions and restarts to pass, so that two cores have work for three.
SIDE_BY_SIDE := -n 3 --dist loadfile

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: demo
demo: setup ## index the standard library through Kafka, kill a worker half way, count again
	$(BIN)/python examples/demo.py

.PHONY: cluster-demo
cluster-demo: setup ## the demo on three brokers, its console on PostgreSQL; kill a broker, a worker
	@deploy/system.sh --cluster
	$(BIN)/python examples/cluster_demo.py

.PHONY: test
test: setup ## every test, against a real Kafka
	@deploy/system.sh --tests
	$(PYTEST) -q $(SIDE_BY_SIDE)

.PHONY: quick
quick: $(VENV)/.installed ## the tests that need no broker, in seconds
	TASKMILL_TEST_QUICK=1 $(PYTEST) -q $(SIDE_BY_SIDE) -m "not kafka and not postgres and not kill and not tools"

.PHONY: proof
proof: setup ## every fault at 30 seeded points, 100,000 simulated schedules, planted bugs: proof/latest.json
	@deploy/system.sh --tests
	$(BIN)/python proof/run.py

.PHONY: check
check: lint quick ## ruff, mypy --strict, import-linter, quick tests; warnings are errors

.PHONY: lint
lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# From another folder: here, ./taskmill would hide the installed package with all its rooms.
	cd $(VENV) && bin/mypy --strict --config-file ../pyproject.toml -p taskmill
	cd $(VENV) && bin/lint-imports --no-cache --config ../pyproject.toml
	@! grep -rnE '^\s*(from|import) (runtime|schemas|producer|consumer|scheduler|console)\b' --include='*.py' . \
		--exclude-dir=.venv --exclude-dir=build || (echo 'a room is imported by its bare name'; false)

.PHONY: docs
docs: $(VENV)/.installed ## the site, in build/site; warnings are errors
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: bench
bench: setup ## perf/: each question's table, and perf/results/*.json
	$(BIN)/python perf/run.py

.PHONY: setup
setup: $(VENV)/.installed system

.PHONY: system
system: ## a JDK and Maven, where no other broker is at hand
	@deploy/system.sh

.PHONY: format
format: $(VENV)/.installed ## ruff, in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: lock
lock: $(VENV)/.installed ## pin all dependencies anew, with hashes
	$(BIN)/pip install -q pip-tools
	$(BIN)/pip-compile -q --generate-hashes --no-emit-index-url --no-emit-trusted-host \
		--no-emit-find-links --strip-extras --allow-unsafe --no-header --extra registry --extra jdk --extra postgres \
		--extra console --extra client --extra tracing --extra logs \
		-o requirements/dev.txt pyproject.toml requirements/dev.in
	@# The image's: of the same versions.
	$(BIN)/pip-compile -q --generate-hashes --no-emit-index-url --no-emit-trusted-host \
		--no-emit-find-links --strip-extras --allow-unsafe --no-header --extra registry --extra postgres \
		--extra console --extra client --extra tracing --extra logs --constraint requirements/dev.txt \
		-o requirements/image.txt pyproject.toml requirements/image.in

$(VENV)/.pinned: requirements/dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		(echo "taskmill needs Python 3.11 or later; this is $$($(PYTHON) --version). Set PYTHON=…"; false)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

$(VENV)/.installed: $(VENV)/.pinned $(SOURCES)
	rm -rf build
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall .
	rm -rf build *.egg-info
	touch $@

.PHONY: clean
clean: ## remove what make made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
