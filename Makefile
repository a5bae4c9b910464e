# Each target does its own set-up. `make help` lists them.
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
BIN := .venv/bin
ALL := trainer,exporter,demo,dev
# uv checks every file against the hashes in requirements.lock.
INSTALL = $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --constraints requirements.lock

.DEFAULT_GOAL := help
.PHONY: help demo serve test lint format lock trainer golden clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/all ## the whole loop on textures: train, serve, collect, retrain, swap; ends with a table and pictures
	$(BIN)/python -m service demo $(DEMO)

serve: .venv/base ## start the service with the starter model on http://127.0.0.1:8000 and stay (GPU=1: on the GPU)
	$(BIN)/python -m service up $(SERVE)

test: .venv/all ## all tests
	$(BIN)/python -m pytest $(TEST)

lint: .venv/all ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/all ## put the code into ruff's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

trainer: .venv/all ## install what retraining needs beside the service

golden: .venv/all ## write the golden loss curve anew (only when the numerics are meant to change)
	$(BIN)/python -m tests.trainer.make_golden

lock: $(UV) ## compile requirements.lock from pyproject.toml: universal, with hashes
	$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --upgrade --quiet \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --output-file requirements.lock

clean: ## remove environments, caches and what the demo wrote
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis demo-out

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet uv

.venv/bin/python: | $(UV)
	$(UV) venv --quiet --python $(PYTHON) .venv

# A GPU build of onnxruntime takes the place of the CPU build: the two overwrite each other's files.
.venv/base: pyproject.toml requirements.lock | .venv/bin/python
ifdef GPU
	echo onnxruntime > .venv/excludes.txt
	$(INSTALL) --excludes .venv/excludes.txt --editable '.[gpu]'
else
	$(INSTALL) --editable .
endif
	@touch $@

.venv/all: pyproject.toml requirements.lock | .venv/bin/python
	$(INSTALL) --editable '.[$(ALL)]'
	@touch $@ .venv/base
