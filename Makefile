# Everything that is done with this repository, one word each; `make help` is the manual.
#
# What a target needs, it makes: an environment in .venv, with pip, from the lock files. A second run finds the stamp
# files in .venv newer than the lock files and pyproject.toml and starts at once.
# Needed beforehand: make, git and Python >= 3.11. Nothing else, and no root.

VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Container images often set it; then pytest would rewrite every assertion anew at each start, which takes seconds.
unexport PYTHONDONTWRITEBYTECODE

# Complete enough to run us? A Python built by hand often lacks ssl or sqlite3.
SUITABLE := import sys, ssl, sqlite3, venv, zlib; sys.exit(sys.version_info < (3, 11))
# The newest first; a Python newer than all of these is taken last, since not every package may have a wheel for it yet.
# Each is run, not only looked up: version managers leave stubs on the PATH that answer "not installed".
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	"$$python" -c '$(SUITABLE)' 2>/dev/null && { echo "$$python"; break; }; done)

# Tests by marker (their meaning: pyproject.toml). TIER_ONLY=1 leaves out what the targets before have run.
LATE := server or notebook or docs or crash
QUICK := not (slow or $(LATE))
ifdef TIER_ONLY
TEST := slow and not ($(LATE))
ALL := $(LATE)
else
TEST := not ($(LATE))
ALL :=
endif

.DEFAULT_GOAL := help
.PHONY: help demo check test test-all format-check lint types imports quick late notebooks demo-offline fmt lock bench storm clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  PYTHON=/path/to/python3   which Python makes .venv (default: the newest >= 3.11 on the PATH)"
	@echo "  TIER_ONLY=1               with test or test-all: only the tests that the targets before leave out"

demo: $(VENV)/.runtime ## Run an agent (offline, unless your environment names a model or holds a key)
	$(BIN)/agent-graph run "What is the weather in Paris?"

check: format-check lint types imports quick ## Format, lint, types, imports, quick tests: before each commit

test: $(VENV)/.dev ## The quick and the slow tests
	$(call pytest,$(TEST))

test-all: late notebooks demo-offline ## Everything: servers, notebooks, documentation, kill tests, the demo too

late: $(VENV)/.dev
	$(call pytest,$(ALL))

demo-offline: $(VENV)/.runtime
	env -u AGENT_GRAPH_MODEL -u OPENAI_API_KEY -u OPENAI_BASE_URL $(MAKE) --no-print-directory demo

format-check: $(VENV)/.dev
	$(BIN)/ruff format --check --output-format concise .

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: $(VENV)/.dev
	$(BIN)/lint-imports

quick: $(VENV)/.dev
	$(BIN)/pytest -m "$(QUICK)"

# -W default: what Jupyter's own packages warn of is not ours to fix.
notebooks: $(VENV)/.dev
	@if ls notebooks/*.ipynb >/dev/null 2>&1; then \
		echo "$(BIN)/pytest --nbmake notebooks"; \
		$(BIN)/pytest -W default --nbmake --nbmake-kernel=python3 notebooks; \
	else echo "(no notebooks)"; fi

fmt: $(VENV)/.dev ## Format the code and fix what can be fixed safely
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# With KILLS=10000 on two free cores about 15 minutes for the kills, and as much for the cuts, contenders and zombies.
storm: $(VENV)/.dev ## Kill agents thousands of times, stock LangGraph beside (KILLS= PAIRS= STOCK_KILLS= JOBS= SEED=)
	$(BIN)/python tests/crash/storm.py $(foreach option,KILLS PAIRS STOCK_KILLS JOBS SEED,$(if $($(option)),$(call storm_option,$(option))))
	$(BIN)/pytest -m crash --storm tests/storage tests/crash/test_owners.py
storm_option = --$(subst _,-,$(shell echo $(1) | tr A-Z a-z)) $($(1))

bench: $(VENV)/.dev ## The measurements behind the README's figures
	$(BIN)/python tests/bench

clean: ## Remove .venv, caches and builds (runs in .agent_graph stay)
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pytest exits with 5 where a marker selects no test: fine for one tier, an error for a whole suite.
define pytest
$(BIN)/pytest -m "$(1)"$(if $(TIER_ONLY), || { [ $$? -eq 5 ] && echo "(no tests in this tier)"; })
endef

# ── the environment ──

$(VENV)/.base:
	@[ -n "$(PYTHON)" ] || { echo "make: no Python >= 3.11 with ssl and sqlite3 on the PATH: install one, or name it:" \
		"make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c '$(SUITABLE)' || { echo "make: PYTHON=$(PYTHON) will not do: needs Python >= 3.11 with ssl and" \
		"sqlite3" >&2; exit 1; }
	"$(PYTHON)" tools/bootstrap.py $(VENV)
	@touch $@

# --no-deps: the lock names every package, so there is nothing to resolve. The build backend is in the lock too.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-deps
$(VENV)/.runtime: $(VENV)/.base requirements.lock pyproject.toml
	@echo "Installing what it takes to run into $(VENV): once, under a minute"
	$(PIP_INSTALL) --require-hashes -r requirements.lock
	$(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	@echo "Installing what tests and checks take into $(VENV): once, about a minute"
	$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

# uv, because it resolves for all platforms and Python versions at once; it is needed for nothing else. Its options keep
# every address out of the files: which index is used is the business of whoever installs.
UV_COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile pyproject.toml --quiet --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)
lock: $(VENV)/.base ## Remake the lock files, keeping versions that still fit (UPGRADE=1: the newest of all)
	$(BIN)/python -m pip install --quiet uv
	$(UV_COMPILE) --group build --output-file requirements.lock
	$(UV_COMPILE) --group dev --constraints requirements.lock --output-file requirements-dev.lock
	@! grep -n '://' requirements.lock requirements-dev.lock || { echo "make: an address in a lock file" >&2; exit 1; }
