# Every target installs what it needs. `make help` lists the targets. GPU=1 uses the GPU build of onnxruntime.
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
BIN := .venv/bin
# uv checks every file against the hashes in requirements.lock.
INSTALL = $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --constraints requirements.lock

# The CPU and GPU builds of onnxruntime overwrite each other's files, so one is excluded and uninstalled.
RUNTIME := $(if $(GPU),gpu,cpu)
OTHER := $(if $(GPU),cpu,gpu)
UNWANTED := onnxruntime$(if $(GPU),,-gpu)
BASE := .venv/base-$(RUNTIME)
ALL := .venv/all-$(RUNTIME)
BASE_EXTRAS := $(if $(GPU),[gpu])
ALL_EXTRAS := [trainer,exporter,demo,dev$(GPU:%=,gpu)]

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-servers lint format lock docs trainer golden bench-train bench-export bench-labels bench-large bench-memory bench-pool bench-serve bench-shadow formats fuzz sizes soak chaos camvid camvid-gate drift encoders triton tensorrt clients wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(ALL) ## run the whole loop on textures: train, serve, collect, retrain, swap; print a table and write pictures
	$(BIN)/python -m demo $(DEMO)

serve: $(BASE) ## run the service with the starter model on http://127.0.0.1:8000 until Ctrl-C
	$(BIN)/python -m service up $(SERVE)

test: $(ALL) ## run all tests, on all cores
	$(BIN)/python -m pytest -n auto --dist worksteal $(TEST)

ON_SERVERS := $(addprefix tests/service/,api/v1 classes conversion images models releases runs storage webhooks worker)
test-servers: $(ALL) ## run the tests of pool, runs, models and releases on servers of their own: PostgreSQL, S3
	TEST_SERVERS=1 $(BIN)/python -m pytest -n auto --dist worksteal $(ON_SERVERS) $(TEST)

lint: $(ALL) ## run ruff, mypy --strict and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(ALL) ## format the code with ruff
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(BASE) ## generate docs/settings.md from the settings of the service
	$(BIN)/python -m service settings --markdown > docs/settings.md

trainer: $(ALL) ## install the trainer and exporter, which the service needs for retraining

golden: $(ALL) ## regenerate the golden loss curves (only after an intended change of the numerics)
	$(BIN)/python -m tests.trainer.make_golden

bench-train: $(ALL) ## compare our training step with a plain implementation of the published one: images/s, memory
	$(BIN)/python -m tests.benchmarks.train_step $(BENCH)

bench-export: $(ALL) ## compare a bundle's graphs with PyTorch: make bench-export BENCH="CHECKPOINT --data DATASET", or BENCH=--memory
	$(BIN)/python -m tests.benchmarks.exported $(BENCH)

# Each peer has its own virtual environment, with copied files: shared memory maps would distort the memory figures.
BENCH_PEERS := limit fastapi litserve bentoml triton
bench-serve: $(ALL) $(BENCH_PEERS:%=.venv/bench-%/installed) ## compare our service with FastAPI, LitServe, BentoML and Triton: 40 minutes, 9 with BENCH=--quick
	$(BIN)/python -m tests.benchmarks.serving $(BENCH)

soak: $(ALL) ## compare the service with its targets under sustained load: 30 minutes, 3 with SOAK=--quick
	$(BIN)/python -m tests.soak $(SOAK)

chaos: $(ALL) ## kill processes, fill the disk, set the clock during real training and check that nothing is lost: 35 minutes, 7 with CHAOS=--quick
	$(BIN)/python -m tests.chaos $(CHAOS)

# The benchmark reports a peer that cannot be installed and measures the others.
.venv/bench-%/installed: tests/benchmarks/serving/peers/%.txt | $(ALL)
	-$(UV) venv --quiet --clear --python $(BIN)/python $(@D) && $(UV) pip install --quiet --link-mode copy \
		--compile-bytecode --python $(@D)/bin/python $(if $(filter triton,$*),--no-deps) --requirements $< && touch $@

# The SDKs contradict each other, so each has its own virtual environment. labelme 7 needs Python 3.12 or newer: set
# PYTHON312 to its path if uv does not find one.
PYTHON312 ?= 3.12
FORMATS := $(patsubst tests/trainer/data/imports/sdks/requirements/%.txt,%,$(wildcard tests/trainer/data/imports/sdks/requirements/*.txt))
formats: $(ALL) $(FORMATS:%=.venv/formats-%/installed) ## install the SDKs of labelling tools (3 GB), write data sets with them and import these, export data sets and read these with them, compare the masks to the pixel
	$(BIN)/python -m tests.trainer.data.imports.sdks $(IMPORTED)
	$(BIN)/python -m tests.trainer.data.exports.sdk_readers

# The table names an SDK that cannot be installed.
.venv/formats-%/installed: tests/trainer/data/imports/sdks/requirements/%.txt | $(ALL)
	-$(UV) venv --quiet --clear --python $(if $(filter labelme,$*),$(PYTHON312),$(BIN)/python) $(@D) && $(UV) pip install --quiet \
		--python $(@D)/bin/python --requirements $< && touch $@

bench-pool: $(ALL) ## measure uploads, pages and run starts with up to a million images, on SQLite and PostgreSQL
	$(BIN)/python -m tests.benchmarks.pool $(BENCH)

bench-shadow: $(ALL) ## measure whether a shadow release delays requests: 8 minutes on a quiet machine
	$(BIN)/python -m tests.benchmarks.shadow $(BENCH)

bench-labels: $(ALL) ## does the order of what to label next beat chance? make bench-labels DATA=DATASET, with images/NAME.jpg and masks
	$(BIN)/python -m tests.benchmarks.labelling_order --data $(DATA) $(BENCH)

bench-large: $(ALL) ## measure the memory of the service for an image of 8000x8000 pixels
	$(BIN)/python -m tests.benchmarks.large_image $(BENCH)

bench-memory: $(ALL) ## measure the memory of one inference by graph and size: constants of service/segmentation/inference/memory_budget.py
	$(BIN)/python -m tests.benchmarks.graph_memory $(BENCH)

sizes: $(ALL) ## compare bundles with PyTorch on images from 1x1 to 2048x2048 pixels, for each kind of encoder: 30 minutes
	$(BIN)/python -m tests.benchmarks.sizes $(SIZES)

encoders: $(ALL) ## build one network of every family of timm, export those used most, and write the table of docs/encoders.md: hours, can be resumed
	$(BIN)/python -m tests.benchmarks.encoders $(ENCODERS)

FUZZED := $(addprefix tests/service/,api/docs/test_schema.py api/test_odd_requests.py api/test_broken_files.py segmentation/test_damaged.py)
fuzz: $(ALL) ## fuzz every call of the OpenAPI document and the image decoder for ten minutes
	$(BIN)/python -m pytest -p tests.service.fuzzing --hypothesis-profile fuzz --timeout 3600 $(FUZZED) $(FUZZ)

camvid: $(ALL) ## train with the four methods on CamVid, three seeds: make camvid DATA=DATASET; takes hours on a CPU, can be resumed; CAMVID="--methods unimatch_v2 --thresholds 0.95 auto" compares thresholds
	$(BIN)/python -m tests.benchmarks.methods --data $(DATA) --out runs/camvid-methods $(CAMVID)

camvid-gate: $(ALL) ## judge CamVid models of different training times as the gate does: make camvid-gate DATA=DATASET; half an hour, can be resumed
	$(BIN)/python -m tests.scenarios.gate_on_camvid --data $(DATA) --out runs/camvid-gate $(GATE)

drift: $(ALL) ## run the loop under a shift of the images, with CamVid over HTTP: make drift DATA=DATASET; half an hour, can be resumed
	$(BIN)/python -m tests.scenarios.drift --data $(DATA) --out runs/drift $(DRIFT)

triton: $(ALL) ## install a Triton server in .venv/triton (300 MB) and run its tests
	$(UV) venv --quiet --clear --python $(BIN)/python .venv/triton
	$(UV) pip install --quiet --python .venv/triton/bin/python --no-deps nvidia-pytriton==0.7.0
	$(UV) pip install --quiet --python .venv/triton/bin/python 'numpy<2' pillow onnxruntime
	$(BIN)/python -m pytest tests/exporter/test_triton_server.py

clients: $(ALL) ## install kserve's client, locust and perf_analyzer in .venv/clients (360 MB) and test the service with them
	$(UV) venv --quiet --clear --python $(BIN)/python .venv/clients
	$(UV) pip install --quiet --python .venv/clients/bin/python kserve==0.21.0 locust==2.47.0
	-$(UV) pip install --quiet --python .venv/clients/bin/python --no-deps perf-analyzer==2.60.0
	$(BIN)/python -m pytest tests/service/api/clients

wheel: $(ALL) ## build the wheel, install it in .venv/installed (400 MB) and try it there
	rm -rf .venv/wheel
	$(UV) build --quiet --wheel --out-dir .venv/wheel
	$(UV) venv --quiet --clear --python $(BIN)/python .venv/installed
	$(UV) pip install --quiet --python .venv/installed/bin/python --constraints requirements.lock .venv/wheel/*.whl
	$(BIN)/python -m pytest tests/e2e/test_wheel.py

tensorrt: $(ALL) ## install NVIDIA's ONNX parser in .venv/tensorrt (250 MB, needs no GPU) and run its tests
	$(UV) pip install --quiet --python $(BIN)/python --target .venv/tensorrt tensorrt-rtx==1.7.1.116
	PYTHONPATH=.venv/tensorrt $(BIN)/python -m pytest tests/exporter/test_tensorrt_engine.py

lock: $(UV) ## compile requirements.lock from pyproject.toml for all platforms, with hashes
	$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --upgrade --quiet \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --output-file requirements.lock

clean: ## remove environments, caches and the demo's output
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
