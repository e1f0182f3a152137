# Two commands are enough: `make demo` and `make test`. Each makes the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLDEST := .venv-oldest
# part of the suite's time is waiting, for servers that answer slowly and the like
WORKERS = $(shell $(PYTHON) -c "import os; print(min(8, os.cpu_count() * 3 // 2))")
PYTEST = python -m pytest --numprocesses $(WORKERS) --dist worksteal --timeout 300

.PHONY: setup demo test test-oldest check docs clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup  ## documents of the standard library → tuned model, board, report
	$(BIN)/python demo/stdlib_docs.py demo/output/documents
	$(BIN)/vectune run demo/output/documents --out demo/output/run --config demo/demo.toml

test: setup  ## the whole test suite, on all cores; no network, no GPU
	$(BIN)/$(PYTEST)

test-oldest:  ## the suite with the lowest versions that pyproject.toml allows; torch's is 3 GB of CUDA packages
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --constraint constraints-oldest.txt --editable '.[offline]' hypothesis pytest-timeout pytest-xdist
	$(OLDEST)/bin/$(PYTEST) -W ignore --ignore tests/integrations --ignore tests/test_docs.py

check: setup  ## style, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: setup  ## the site, in site/; a broken link or an unknown name fails (with --quiet a broken link would not)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## all that the other targets made
	rm -rf $(VENV) $(OLDEST) demo/output build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
