# On a machine with Python 3.11, pip, make and gcc, each of these does all its own set-up in .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
READY := .venv/ready

.PHONY: help setup demo replay test check lint types imports wheel format docs bench mutate soak lock

help: ## show what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

setup: $(READY) ## make .venv with the command perprisk in it
	@echo "Ready: $(BIN)/perprisk --help"

$(READY): requirements.lock pyproject.toml .ci/environment
	@.ci/environment .venv
	@$(BIN)/python -m pip install --quiet --no-deps --no-index --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## do the main job on a generated venue and write out/demo
	@mkdir -p out
	$(BIN)/perprisk demo --out out/demo

KLINES ?= ../shared/data/binance-vision/klines-1m

replay: $(READY) ## simulate the venue on published prices: DAY=2024-02-28 KLINES=folder
	$(BIN)/python -m benchmarks.replays $(DAY) --klines $(KLINES) $(ARGS)

WORKERS ?= 2

test: $(READY) ## run the tests; ARGS go to pytest
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

check: lint types imports wheel ## everything that CI checks beside the tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports --no-logo

wheel: $(READY)
	.ci/wheel

format: $(READY) ## lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## write docs/features.md from the catalogue, and docs/openapi.json from the service
	$(BIN)/python -m pipelines.feature_docs
	$(BIN)/python -m pipelines.service_docs

bench: $(READY) ## run every program in benchmarks/ but soak, replays, mutation; ARGS go to each
	@programs=$$(ls benchmarks/*.py 2>/dev/null | grep -v -e /soak -e /replays -e /mutation || true); \
	[ -n "$$programs" ] || { echo "benchmarks/ holds no program yet: nothing was measured"; exit 1; }; \
	for program in $$programs; do echo "== $$program"; $(BIN)/python $$program $(ARGS); done

mutate: $(READY) ## change the margin policy in small ways, and see whether its tests notice
	$(BIN)/python -m benchmarks.mutation $(ARGS)

soak: $(READY) ## run the slow tests, and the service for hours; ARGS go to each program
	$(BIN)/python -m pytest -m slow
	@programs=$$(ls benchmarks/soak*.py 2>/dev/null || true); \
	[ -n "$$programs" ] || { echo "benchmarks/ holds no soak program yet: nothing was run"; exit 1; }; \
	for program in $$programs; do echo "== $$program"; $(BIN)/python $$program $(ARGS); done

lock: $(READY) ## renew requirements.lock; ARGS=--upgrade moves to newer versions
	$(BIN)/uv pip compile pyproject.toml --group dev --universal -p 3.11 --generate-hashes \
	    --no-emit-index-url $(ARGS) -o requirements.lock
