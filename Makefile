# The verbs of this project; `make help` lists them. People and CI use the same ones.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Where pip finds torch, if not where it finds the rest: e.g. an index with CPU builds only.
TORCH_INDEX ?=
PORT ?= 50051
GATEWAY_PORT ?= 8000
METRICS_PORT ?= 9464
UP := $(BIN)/tectum up --demo --port $(PORT) --gateway-port $(GATEWAY_PORT) --metrics-port $(METRICS_PORT)

.PHONY: help
help: ## List the verbs.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | column -t -s $$'\t'

.PHONY: run
run: setup ## Serve the embedded model, show it on held-out frames, and serve on until Ctrl-C.
	@$(UP)

.PHONY: demo
demo: setup ## The same, but end after the demo.
	@$(UP) --leave

.PHONY: setup
setup: $(VENV)/.ready ## Create .venv from pinned constraints.

$(VENV)/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is needed; or: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

.PHONY: test
test: setup ## Run the tests.
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest --quiet --numprocesses 2 --dist loadfile

.PHONY: check
check: setup ## Lint, format, types, import rules, stubs, contract.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	PYTHON=$(BIN)/python scripts/generate_stubs.sh --check
	$(BIN)/buf lint proto
	$(BIN)/buf breaking proto --against proto/released.binpb

.PHONY: format
format: setup ## Format and mend what can be mended.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: proto
proto: setup ## Regenerate client/tectum/v1 from proto/.
	PYTHON=$(BIN)/python scripts/generate_stubs.sh

.PHONY: train-tiny
train-tiny: setup ## Train the embedded model anew (see the recipe for minutes and numbers).
	OMP_WAIT_POLICY=PASSIVE $(BIN)/tectum train tectum-tiny

.PHONY: bench
bench: setup ## Measure serving against the bare forward pass.
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/serving.py

.PHONY: clean
clean: ## Remove what can be made again.
	rm -rf $(VENV) .venv-world build dist runs demo-output .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
