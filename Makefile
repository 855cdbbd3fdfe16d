# make setup   a virtual environment in .venv with everything that edgekit and its tests need
# make demo    the whole flow on the digits example; the results are in demo-out/
# make test    the tests, with coverage
# make lint    style, types and import contracts
# make bench   the benchmarks against other tools, where benchmarks/ has what they need
# make clean   removes what the others made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

EXTRAS := compile,openvino,dev
# TensorRT for RTX builds without a GPU, so that a graph it cannot take fails here; its wheels are for this platform alone.
ifeq ($(shell uname -s)-$(shell uname -m),Linux-x86_64)
EXTRAS := $(EXTRAS),rtx
endif

# Coverage below this fails `make test`.
COVERAGE ?= 85
# Test processes; each uses a thread or two of its own.
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench clean

help:
	@sed -n 's/^# make/make/p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

demo: $(STAMP)
	$(BIN)/python examples/digits/demo.py --output demo-out

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --cov=edgekit --cov-report=term --cov-fail-under=$(COVERAGE)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) demo-out dist build .coverage coverage.xml .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
