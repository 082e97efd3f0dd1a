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
WORLD := data/tabletop/test/meta/info.json
WANDERING := data/wandering/test/meta/info.json
JUDGED := data/judged/test/meta/info.json
JUDGED_WANDERING := data/judged-wandering/test/meta/info.json
# Rows of `make gates` that learn from them.
WANDERERS := world-model world-model-trained
# Servers that ours is measured beside.
PEERS := infinity litserve mosec ray triton
UP := TECTUM_MAKE=1 $(BIN)/tectum up --demo --port $(PORT) --gateway-port $(GATEWAY_PORT) --metrics-port $(METRICS_PORT)

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

# --no-compile: Python compiles what is imported once it is; all of torch takes a minute longer.
$(VENV)/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is needed; or: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "filling $(VENV) with torch and the rest: about 2 GB, a few minutes, once" >&2
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --no-deps --index-url $(TORCH_INDEX) torch)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@

.PHONY: test
test: setup ## Run the tests.
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest --quiet --numprocesses 2 --dist loadfile

.PHONY: check
check: setup ## Lint, format, types, import rules, stubs, contract, containers' files.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	PYTHON=$(BIN)/python scripts/generate_stubs.sh --check
	$(BIN)/buf lint proto
	$(BIN)/buf breaking proto --against proto/released.binpb
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose*.yaml

.PHONY: format
format: setup ## Format and mend what can be mended.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: proto
proto: setup ## Regenerate client/tectum/v1 from proto/.
	PYTHON=$(BIN)/python scripts/generate_stubs.sh

.PHONY: world
world: $(WORLD) ## Make the episodes that the embedded model learns from (see worlds/README.md).

$(WORLD): | .venv-world/.ready
	cd worlds && ../.venv-world/bin/python -m tabletop.generate --out ../data/tabletop

.PHONY: wandering
wandering: $(WANDERING) ## Make the episodes that world models learn from, in which the hand goes anywhere.

$(WANDERING): | .venv-world/.ready
	cd worlds && ../.venv-world/bin/python -m tabletop.generate --out ../data/wandering --wander 0.8 \
	    --train-episodes-per-task 120 --test-episodes-per-task 4

.PHONY: judged
judged: $(JUDGED) ## Make the episodes that gates are judged by, on which nothing was chosen.

$(JUDGED): | .venv-world/.ready
	cd worlds && ../.venv-world/bin/python -m tabletop.generate --out ../data/judged --seed 2000 \
	    --held-out-look --train-episodes-per-task 1 --test-episodes-per-task 24

.PHONY: judged-wandering
judged-wandering: $(JUDGED_WANDERING) ## The same for world models.

$(JUDGED_WANDERING): | .venv-world/.ready
	cd worlds && ../.venv-world/bin/python -m tabletop.generate --out ../data/judged-wandering --seed 2000 \
	    --held-out-look --wander 0.8 --train-episodes-per-task 1 --test-episodes-per-task 8

.venv-world/.ready: worlds/requirements.txt
	@echo "filling .venv-world with the simulator: a few minutes, once" >&2
	$(PYTHON) -m venv .venv-world
	.venv-world/bin/pip install --quiet --requirement worlds/requirements.txt
	@touch $@

.PHONY: train-tiny
train-tiny: setup $(WORLD) ## Train the embedded model anew (see the recipe for minutes and numbers).
	OMP_WAIT_POLICY=PASSIVE $(BIN)/tectum train tectum-tiny

.PHONY: bench
bench: setup ## Measure serving against the bare forward pass.
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/serving.py

.PHONY: peers
peers: setup $(PEERS:%=.venv-%/.ready) ## Measure serving beside other servers, each in an environment of its own (hours).
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/peers.py

.venv-%/.ready: benchmarks/peer/requirements/%.txt
	@echo "filling .venv-$* with a server to measure beside: a few minutes, once" >&2
	$(PYTHON) -m venv .venv-$*
	$(if $(TORCH_INDEX),.venv-$*/bin/pip install --quiet --constraint constraints.txt --no-deps --index-url $(TORCH_INDEX) torch)
	.venv-$*/bin/pip install --quiet --constraint constraints.txt torch
	.venv-$*/bin/pip install --quiet --requirement benchmarks/peer/requirements/core.txt --requirement $<
	.venv-$*/bin/pip uninstall --quiet --yes torchvision timm
	@touch $@

.PHONY: bench-gpu
bench-gpu: setup ## Measure serving and the large recipes' training on this machine's GPU.
	$(BIN)/python benchmarks/serving_gpu.py
	$(BIN)/python benchmarks/training_gpu.py

.PHONY: pictures
pictures: setup ## Draw the pictures of docs/objectives.md from runs of `make gates`.
	$(BIN)/python benchmarks/pictures.py

# One objective, one seed: make gates ROW=mae SEED=1. Ctrl-C saves, and the same command goes on.
.PHONY: gates
gates: setup $(WORLD) $(JUDGED) $(if $(ROW),$(if $(filter $(WANDERERS),$(ROW)),$(WANDERING) $(JUDGED_WANDERING)),$(WANDERING) $(JUDGED_WANDERING)) ## Show that each objective learns: all rows and seeds that are missing (hours).
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/gates.py --row "$(ROW)" --seed "$(SEED)" $(if $(REMEASURE),--again)

# scripts/images.sh says what it reads from the environment, or from here: make images DEVICE=cuda
.PHONY: images
images: ## Build the images, with docker, podman or buildah.
	scripts/images.sh

.PHONY: images-test
images-test: setup ## Build the images, start them as compose does, and call them.
	$(BIN)/python docker/check_images.py

.PHONY: clean
clean: ## Remove what can be made again.
	rm -rf $(VENV) .venv-world build dist runs demo-output .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
