# Everything a newcomer needs; `make` alone lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INFINITY := .bench/infinity
# The Python client is a distribution of its own; the tests and the types need it installed.
CLIENT := clients/python
# What `make serve` installs beside the server: OpenVINO, and PyTorch where there is an NVIDIA card.
EXTRAS ?= cpu$(if $(wildcard /proc/driver/nvidia/version),$(COMMA)torch)
COMMA := ,
# Which TensorRT `make gpu-check` verifies: tensorrt or tensorrt-rtx.
TENSORRT ?= tensorrt
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help serve test hostile fuzz gpu-check image-check lint audit sbom format docs bench overload hostile-clients soak train-demo evaluate-demo constraints clean

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

serve: $(VENV)/.serve ## Install and serve on port 8093, with the embedded demo model unless CLIP_MODEL_PATH is set
	CLIP_MODEL_PATH="$${CLIP_MODEL_PATH:-builtin:demo}" exec $(BIN)/clip-server serve

test: $(VENV)/.test ## Install and run every test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

hostile: $(VENV)/.test ## Send the server all that is meant to knock it over, and print what each request cost
	$(BIN)/python -m checks.hostile

fuzz: $(VENV)/.fuzz ## Fuzz the image, JSON, form and checkpoint readers, then the API; FUZZ_ARGS="--runs 100000"
	$(BIN)/python -m checks.fuzz $(FUZZ_ARGS)
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-1000} $(BIN)/python -m pytest tests/e2e/test_openapi.py

gpu-check: $(VENV)/.gpu ## On a machine with an NVIDIA GPU: verify TensorRT and write gpu-report.md
	$(BIN)/python -m checks.gpu.check

image-check: $(VENV)/.test ## As root on Linux: make the CPU image's contents without a container engine, and run them
	$(BIN)/python -m checks.image.check $(IMAGE_CHECK_ARGS)

lint: $(VENV)/.lint ## Style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(VENV)/.lint ## Look up known holes in the pinned versions
	$(BIN)/python -m checks.supply_chain.audit

sbom: $(VENV)/.test ## Write sbom.cdx.json, what `make serve` installs as CycloneDX
	$(BIN)/python -m checks.supply_chain.sbom --extras '$(EXTRAS)'

format: $(VENV)/.lint ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/.lint ## Write docs/configuration.md from the declarations in entrypoints/settings.py
	$(BIN)/python -m entrypoints.configuration > docs/configuration.md

clean: ## Remove the virtual environment and every cache
	rm -rf $(VENV) sbom.cdx.json .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

overload: $(VENV)/.bench ## Ten times what the server can take, for five minutes: docs/robustness
	$(BIN)/python -m checks.endurance.overload $(OVERLOAD_ARGS)

hostile-clients: $(VENV)/.bench ## How much others notice of clients that mean no good: docs/robustness
	$(BIN)/python -m checks.endurance.hostile_clients $(HOSTILE_ARGS)

soak: $(VENV)/.bench ## An hour of load, attacks and faults, every answer judged: docs/robustness
	$(BIN)/python -m checks.endurance.soak $(SOAK_ARGS)

train-demo: $(VENV)/.train ## Train the embedded demo model anew (needs npm; about an hour)
	npm ci --prefix training
	$(BIN)/python -m training.train --seed 7

evaluate-demo: $(VENV)/.train ## Zero-shot accuracy of the demo model on artwork it was never trained on
	$(BIN)/python -m training.evaluate

bench: $(VENV)/.bench $(INFINITY)/.installed ## Speed beside peers, on this machine (half an hour): benchmarks/results/report.md
	$(BIN)/python -m benchmarks --infinity $(INFINITY)/bin/infinity_emb $(BENCH_ARGS)

constraints: ## Record the exact versions of a fresh installation in constraints.txt
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,lint,demo-training,bench]' \
		--editable $(CLIENT)
	$(BIN)/pip freeze --exclude-editable > constraints.txt

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one by: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing, once ..."
	$(INSTALL) --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.test: pyproject.toml $(CLIENT)/pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[test]' --editable $(CLIENT)
	@touch $@ $(VENV)/.serve

$(VENV)/.fuzz: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[fuzz]' --editable $(CLIENT)
	@touch $@

$(VENV)/.bench: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[bench]'
	@touch $@

# A peer that wants older versions than ours, so it lives apart. It needs aiohttp, and says not so.
$(INFINITY)/.installed:
	$(PYTHON) -m venv $(INFINITY)
	$(INFINITY)/bin/pip install --quiet --disable-pip-version-check \
		'infinity-emb[torch,server,vision]==0.0.78' 'transformers<5' aiohttp 'torch==2.14.1' 'torchvision==0.29.1'
	@touch $@

$(VENV)/.gpu: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[test,$(TENSORRT)]'
	@touch $@

$(VENV)/.train: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[demo-training]'
	@touch $@

$(VENV)/.lint: pyproject.toml $(CLIENT)/pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[test,lint,demo-training,bench]' --editable $(CLIENT)
	@touch $@ $(VENV)/.test $(VENV)/.serve
