# Each target does its own set-up. `make help` lists them. GPU=1 takes the GPU build of onnxruntime.
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
BIN := .venv/bin
# uv checks every file against the hashes in requirements.lock.
INSTALL = $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --constraints requirements.lock

# The two builds of onnxruntime overwrite each other's files: one is excluded, and what it left is taken out.
RUNTIME := $(if $(GPU),gpu,cpu)
OTHER := $(if $(GPU),cpu,gpu)
UNWANTED := onnxruntime$(if $(GPU),,-gpu)
BASE := .venv/base-$(RUNTIME)
ALL := .venv/all-$(RUNTIME)
BASE_EXTRAS := $(if $(GPU),[gpu])
ALL_EXTRAS := [trainer,exporter,demo,dev$(GPU:%=,gpu)]

.DEFAULT_GOAL := help
.PHONY: help demo serve test lint format lock docs trainer golden bench-train bench-export bench-large bench-memory bench-serve fuzz sizes soak camvid triton tensorrt clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(ALL) ## the whole loop on textures: train, serve, collect, retrain, swap; ends with a table and pictures
	$(BIN)/python -m demo $(DEMO)

serve: $(BASE) ## start the service with the starter model on http://127.0.0.1:8000 and stay
	$(BIN)/python -m service up $(SERVE)

test: $(ALL) ## run all tests, on all cores
	$(BIN)/python -m pytest -n auto --dist worksteal $(TEST)

lint: $(ALL) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(ALL) ## put the code into ruff's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(BASE) ## generate docs/settings.md from service/settings.py
	$(BIN)/python -m service settings --markdown > docs/settings.md

trainer: $(ALL) ## install what retraining needs beside the service

golden: $(ALL) ## write the golden loss curves anew (only when the numerics are meant to change)
	$(BIN)/python -m tests.trainer.make_golden

bench-train: $(ALL) ## our training step beside a plain reading of the published one: images/s, memory, distance to the limit
	$(BIN)/python -m tests.benchmarks.train_step $(BENCH)

bench-export: $(ALL) ## a bundle's graphs beside PyTorch: make bench-export BENCH="CHECKPOINT --data DATASET", or BENCH=--memory
	$(BIN)/python -m tests.benchmarks.exported $(BENCH)

# Each peer in an environment of its own; copies, since memory that several sides map would be counted for none of them.
BENCH_PEERS := limit fastapi litserve bentoml triton
bench-serve: $(ALL) $(BENCH_PEERS:%=.venv/bench-%/installed) ## our service beside FastAPI, LitServe, BentoML and Triton: 40 minutes, BENCH=--quick 9
	$(BIN)/python -m tests.benchmarks.serving $(BENCH)

soak: $(ALL) ## the service under load for long, held to its aims: half an hour, SOAK=--quick three minutes
	$(BIN)/python -m tests.soak $(SOAK)

# One that cannot be installed is told as such by the benchmark, and the rest goes on.
.venv/bench-%/installed: tests/benchmarks/serving/peers/%.txt | $(ALL)
	-$(UV) venv --quiet --clear --python $(BIN)/python $(@D) && $(UV) pip install --quiet --link-mode copy \
		--compile-bytecode --python $(@D)/bin/python $(if $(filter triton,$*),--no-deps) --requirements $< && touch $@

bench-large: $(ALL) ## memory of a service that is sent 8000x8000 pixels
	$(BIN)/python -m tests.benchmarks.large_image $(BENCH)

bench-memory: $(ALL) ## memory of one inference by graph and size: the constants of service/segmentation/inference/memory_budget.py
	$(BIN)/python -m tests.benchmarks.graph_memory $(BENCH)

sizes: $(ALL) ## images from 1x1 to 2048x2048 pixels through bundles and through PyTorch, for each kind of encoder; half an hour
	$(BIN)/python -m tests.benchmarks.sizes $(SIZES)

FUZZED := $(addprefix tests/service/,api/docs/test_schema.py api/test_odd_requests.py api/test_broken_files.py segmentation/test_damaged.py)
fuzz: $(ALL) ## what nobody thought of, for ten minutes: every call of the OpenAPI document, broken images
	$(BIN)/python -m pytest -p tests.service.fuzzing --hypothesis-profile fuzz --timeout 3600 $(FUZZED) $(FUZZ)

camvid: $(ALL) ## the four methods on CamVid, three seeds: make camvid DATA=DATASET; hours on a CPU, goes on where it was
	$(BIN)/python -m tests.benchmarks.methods --data $(DATA) --out runs/camvid-methods $(CAMVID)

triton: $(ALL) ## a real Triton server in .venv/triton (300 MB), and the tests that ask it
	$(UV) venv --quiet --clear --python $(BIN)/python .venv/triton
	$(UV) pip install --quiet --python .venv/triton/bin/python --no-deps nvidia-pytriton==0.7.0
	$(UV) pip install --quiet --python .venv/triton/bin/python 'numpy<2' pillow onnxruntime
	$(BIN)/python -m pytest tests/exporter/test_triton_server.py

tensorrt: $(ALL) ## NVIDIA's own parser in .venv/tensorrt (250 MB, no GPU needed), and the tests that ask it
	$(UV) pip install --quiet --python $(BIN)/python --target .venv/tensorrt tensorrt-rtx==1.7.1.116
	PYTHONPATH=.venv/tensorrt $(BIN)/python -m pytest tests/exporter/test_tensorrt_engine.py

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

$(BASE): pyproject.toml requirements.lock | .venv/bin/python
	$(call install,$(BASE_EXTRAS))
	@touch $@

$(ALL): pyproject.toml requirements.lock | .venv/bin/python
	$(call install,$(ALL_EXTRAS))
	@touch $@ $(BASE)

define install
	@rm -f .venv/*-$(OTHER)
	@echo $(UNWANTED) > .venv/excludes.txt
	$(UV) pip uninstall --quiet --python $(BIN)/python $(UNWANTED) 2>/dev/null || true
	$(INSTALL) --excludes .venv/excludes.txt --editable '.$(1)'
endef
