# Two commands on a machine with python3 (3.11 or newer), make and a package index:
#   make demo     sets up .venv and runs the analyst team on a real file
#   make test     sets up .venv and runs the tests
# `make help` lists the others. With uv installed it is used; `make UV= …` does without.

PYTHON   ?= python3
QUESTION ?= Which region has the highest total revenue?
ARGS     ?=
SEED     ?= 1

ifeq ($(origin UV),undefined)
UV := $(shell command -v uv 2>/dev/null)
endif

VENV := .venv
BIN  := $(VENV)/bin
PY   := $(BIN)/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help setup demo test check lint types floors format claims claim pins clean distclean

# Nothing of the caller's own Python may leak into .venv, and an index that hiccups is asked again.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PIP_USER
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
PIP_RETRIES ?= 8
UV_HTTP_RETRIES ?= 8
# uv brings certificates of its own; a company's index is known to the machine's. Older versions know
# the second name only.
UV_SYSTEM_CERTS ?= 1
UV_NATIVE_TLS ?= 1
export PIP_RETRIES UV_HTTP_RETRIES UV_SYSTEM_CERTS UV_NATIVE_TLS

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

# ---- setting up -----------------------------------------------------------------------------------------------------
# A stamp says what .venv holds, so a second run asks no index. The build backend is installed first and used without
# an isolated environment, which pip would otherwise fetch anew for each install.

MADE    := $(VENV)/.made
RUN     := $(VENV)/.installed-all
DEVELOP := $(VENV)/.installed-dev

ifneq ($(UV),)
MAKE_VENV = $(UV) venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
VENV_HINT = ; without uv: make UV= …
HAVE_PIP  = :
INSTALL   = $(UV) pip install --quiet --python $(PY) --constraint constraints.txt
else
MAKE_VENV = $(PYTHON) -m venv $(VENV)
VENV_HINT = ; on Debian: apt-get install python3-venv
HAVE_PIP  = $(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null
INSTALL   = $(PY) -m pip install --quiet --constraint constraints.txt
endif

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

# A .venv that works is kept, whoever made it; one that was moved or is too old is made anew.
$(MADE):
	@$(PY) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
	  $(PYTHON) -c '$(NEW_ENOUGH)' || { \
	    echo "agentstream needs Python 3.11 or newer; '$(PYTHON)' is not: make PYTHON=python3.12 …" >&2; exit 1; }; \
	  echo "making $(VENV)"; rm -rf $(VENV); $(MAKE_VENV) || { \
	    rm -rf $(VENV); echo "no virtual environment could be made$(VENV_HINT)" >&2; exit 1; }; }
	@touch $@

$(RUN): pyproject.toml constraints.txt | $(MADE)
	@echo "installing into $(VENV) what running needs"
	@$(HAVE_PIP)
	@$(INSTALL) hatchling editables
	@$(INSTALL) --no-build-isolation --editable '.[all]'
	@touch $@

$(DEVELOP): pyproject.toml constraints.txt | $(MADE)
	@echo "installing into $(VENV) what running, testing and checking need"
	@$(HAVE_PIP)
	@$(INSTALL) hatchling editables
	@$(INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $(RUN) $@

setup: $(DEVELOP)  ## make .venv with everything that running, testing and checking need

# ---- the two commands -----------------------------------------------------------------------------------------------

demo: $(RUN)  ## run the analyst team on examples/data/sales.csv, without any key
	@$(BIN)/agentstream run agents/analyst "$(QUESTION)" --file examples/data/sales.csv

# The closing line of pytest stays the last thing printed. COV=1 measures coverage and holds it against its floor.
test: $(DEVELOP)  ## run the tests and the quick claims; ARGS="tests/wire -k sse" selects, COV=1 measures coverage
	@$(BIN)/pytest $(if $(COV),--cov --cov-report=term) $(ARGS)

# ---- checks ---------------------------------------------------------------------------------------------------------

check: lint types floors  ## ruff, formatting, mypy and pyright in strict mode, import floors

lint: $(DEVELOP)  ## ruff's rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEVELOP)  ## mypy and pyright, both strict
	$(BIN)/mypy
	$(BIN)/basedpyright

floors: $(DEVELOP)  ## a room imports only from lower floors
	$(BIN)/lint-imports

format: $(DEVELOP)  ## rewrite the sources in the house's form
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# ---- claims ---------------------------------------------------------------------------------------------------------

claims: $(DEVELOP)  ## list everything that agentstream says it can do
	@$(PY) tests/claims

claim: $(DEVELOP)  ## run one claim: make claim ID=resume.every-byte [SEED=7]; its last line is JSON
	@test -n "$(ID)" || { echo "which claim? make claim ID=…; 'make claims' lists them" >&2; exit 2; }
	@$(PY) tests/claims "$(ID)" "$(SEED)"

# ---- keeping house --------------------------------------------------------------------------------------------------

pins: $(MADE)  ## resolve all versions afresh and rewrite constraints.txt
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(PY) -m venv "$$folder" && \
	  "$$folder/bin/python" -m pip install --quiet hatchling editables && \
	  "$$folder/bin/python" -m pip install --quiet --no-build-isolation --editable '.[dev]' && \
	  grep '^#' constraints.txt > "$$folder/pins" && \
	  "$$folder/bin/python" -m pip freeze --exclude-editable >> "$$folder/pins" && cp "$$folder/pins" constraints.txt

clean:  ## remove what checks and tests keep
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov dist build
	find agentstream agents tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## remove .venv too
	rm -rf $(VENV)
