# Everything a new machine needs is installed here, into .venv, at the versions of constraints.txt.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help env repro test test-fast soundness bypass promote-demo verifier mutations zoo bench-compression bench-search bench-registry check format ui clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

$(PEERS_STAMP): benchmarks/compression/neural-compressor.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $(PEERS_STAMP)

env: $(STAMP) ## make the environment, pinned

repro: $(STAMP) ## take the bundled digits from raw data to a registered, proven int8 model
	@$(BIN)/leangate run

test: $(STAMP) ## all tests
	$(BIN)/python -m pytest -n 2 -m 'not integration'
	@# One at a time: integration tests time models, and would only slow each other down.
	$(BIN)/python -m pytest -m integration

test-fast: $(STAMP) ## all tests but the integration tests
	$(BIN)/python -m pytest -n 2 -m 'not integration'

soundness: $(STAMP) ## plant defects into good pipelines, and print what the gates caught and let through
	@$(BIN)/python benchmarks/soundness.py

promote-demo: $(STAMP) ## from raw data to production and back on a local gated registry, every command shown
	@$(BIN)/python examples/promote_demo.py

bench-registry: $(STAMP) ## what a gated registry costs beside a plain one, with a 50 MB model
	@$(BIN)/python benchmarks/registry_speed.py

verifier: $(STAMP) ## build the wheel of `leangate-verify`, the offline verifier alone, into dist/
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist ./verifier
	@ls dist/leangate_verify-*.whl

mutations: $(STAMP) ## change a bundle in 10,000 places, one byte at a time, and print what `leangate verify` missed
	@$(BIN)/python benchmarks/mutations.py

bypass: $(STAMP) ## try to get an unproven model into production, past a real server, and print what came of each attempt
	@$(BIN)/python benchmarks/bypass.py

bench-search: $(STAMP) ## `leangate search` on ResNet-20 beside the peers; needs LEANGATE_BENCH_DATA, takes an hour
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@$(BIN)/python benchmarks/compression/search.py

bench-compression: $(STAMP) $(PEERS_STAMP) ## compress ResNet-20 on CIFAR-10 beside the peers; needs LEANGATE_BENCH_DATA, takes 40 minutes
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@LEANGATE_PEER_PYTHON=$(PEERS)/bin/python $(BIN)/python benchmarks/compression/quantization.py
	@$(BIN)/python benchmarks/compression/compose.py --repeat --picture docs/images/compression.svg

zoo: $(STAMP) ## prune a zoo of topologies, beside torch-pruning, and print what came of each
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@$(BIN)/python benchmarks/zoo.py

check: $(STAMP) ## ruff, mypy, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## rewrite the code as ruff formats it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: $(STAMP) ## the MLflow user interface on 127.0.0.1:5000, for the registry of `make repro`
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --workers 1 \
		--backend-store-uri sqlite:///mlflow.db

clean: ## remove everything `make repro` made; the environment stays
	rm -rf artifacts mlflow.db mlruns .dvc/tmp .dvc/cache
	@# A lock that git tracks is a record to keep.
	git ls-files --error-unmatch dvc.lock >/dev/null 2>&1 || rm -f dvc.lock
