# Isogon's four targets. Each says what it does; `make run` needs only Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check bench help

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/'

run: $(VENV)/.installed ## train the Wordle agent on a local Ray, evaluate it, print a summary (about 3 minutes)
	@echo "== make run: training Wordle on a Ray of this machine, into a new folder under runs/"
	$(BIN)/isogon train wordle

test: $(VENV)/.installed-dev ## run the tests (twenty minutes on 2 cores)
	@echo "== make test: every test, each with a Ray of its own where it needs one"
	$(BIN)/pytest

check: $(VENV)/.installed-dev ## format, lint, types, import floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-bench ## run the benchmarks; each prints one JSON object as its last line
	@for file in benchmarks/bench_*.py benchmarks/kernels.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

$(VENV)/bin/python:
	@echo "== creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is older than Python 3.11; run 'make PYTHON=/path/to/python3.11'" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "== installing isogon and what it needs into $(VENV)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "== installing the development tools into $(VENV)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@echo "== installing what the benchmarks compare with into $(VENV)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@
