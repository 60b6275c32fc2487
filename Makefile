# Everything a contributor or a machine runs goes through here: `make help` lists it.

.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# torch is named apart because only you know your accelerator. Empty means the version pinned in constraints.txt;
# otherwise these are arguments to pip, e.g. TORCH="torch==2.12.1 --index-url ADDRESS-OF-YOUR-BUILD".
TORCH ?=
# Two processes suit the smallest machine we support; raise it on a bigger one.
JOBS ?= 2
BENCHMARKS ?= ingest
# Further arguments: make demo ARGS="--examples 1600", make test ARGS="tests/core -k lease".
ARGS ?=

ifneq ($(TORCH),)
.PHONY: $(INSTALLED)
endif

.PHONY: help setup demo serve test check lint format constraints benchmarks clean

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  \033[36mmake %-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## make .venv and install everything; quick when nothing changed (TORCH=... for a GPU build)

$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { \
	  for name in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3 python; do \
	    "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && found=$$name && break; \
	  done; \
	  test -n "$$found" || { echo "make setup: no Python 3.11 or newer on the PATH (set PYTHON=/path/to/python3)" >&2; exit 1; }; \
	  echo "making $(VENV) with $$($$found --version)"; \
	  "$$found" -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "make setup: $$found cannot make a virtual environment (on Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }; }
	@grep -v $(if $(TORCH),'^torch==','^$$') constraints.txt > $(VENV)/constraints.txt
	$(if $(TORCH),$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/constraints.txt -e '.[trainer,dev]'
	@touch $@

demo: setup ## see the whole product work on this machine, in minutes: data, labels, two trainings, the proof
	$(BIN)/causeway demo $(ARGS)

serve: setup ## run the service in one process: SQLite, no broker, the rule teacher
	$(BIN)/causeway serve $(ARGS)

test: setup ## run all tests (finds or starts Postgres and Redis, see tests/services.py)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: setup ## everything that can be known without running the system: lint, format, types, imports, migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/migrations -k what_the_models_say

lint: setup ## ruff, with fixes
	$(BIN)/ruff check --fix .

format: setup ## format the code
	$(BIN)/ruff format .

constraints: setup ## write constraints.txt anew from .venv (after changing a range in pyproject.toml)
	@{ echo "# The exact versions that CI passed with: the whole of .venv. Written by 'make constraints'."; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -E '^[A-Za-z0-9._-]+==' ; } > constraints.tmp
	@mv constraints.tmp constraints.txt && touch $(INSTALLED)

benchmarks: setup ## run the benchmarks (BENCHMARKS=NAME for one)
	@for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name || exit 1; done

clean: ## remove what can be made again: caches, builds, var/ (not .venv)
	rm -rf var build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
