# Everything a clone needs. `make demo` and `make test` set up what they use; only git, make and Python are assumed.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
LABEL_STUDIO := .venv-label-studio
SOURCES := autolabel connectors pipelines tests training benchmarks tools
DEMO_IMAGES := sample_data/images
DEMO_PROMPT := scratch. dent. crack. rust. hole. stain.
DEMO_RUN := runs/demo

# Each test process runs models: one thread each, or they fight over the cores.
CORES := $(shell nproc 2>/dev/null || echo 2)
WORKERS ?= $(shell n=$(CORES); echo $$(( n > 4 ? 4 : n )))
THREADS := $(shell n=$$(( $(CORES) / $(WORKERS) )); echo $$(( n > 1 ? n : 1 )))
PYTEST_ARGS ?=
BENCH_ARGS ?=
# Threads that wait by spinning take the core from the one they wait for: five times slower beside another busy process.
export OMP_WAIT_POLICY ?= PASSIVE
# Some containers forbid it, and then every process compiles torch and the rest anew, which takes seconds.
unexport PYTHONDONTWRITEBYTECODE
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
	--no-annotate --no-header --no-emit-index-url --no-emit-find-links

.PHONY: help setup setup-dev demo test lint check format bench train-starter lock wheel clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

setup: $(VENV)/.autolabel-run ## Make .venv with what every command needs

setup-dev: $(VENV)/.autolabel-dev $(LABEL_STUDIO)/.installed ## Make .venv with what tests and checks need too

$(VENV)/.autolabel-%: pyproject.toml constraints.txt tools/bootstrap.sh
	@tools/bootstrap.sh $*

# A server of the tests' own. Where it cannot be installed, tests say so, and every `make test` tries again.
$(LABEL_STUDIO)/.installed: tools/label-studio.txt | $(VENV)/.autolabel-dev
	@tools/bootstrap.sh label-studio

demo: $(VENV)/.autolabel-demo ## Label the sample images with the bundled models, and say where the report is
	@$(BIN)/autolabel run $(DEMO_IMAGES) --prompt "$(DEMO_PROMPT)" --run $(DEMO_RUN)

# Where a test process dies, pytest-xdist hands out its finished files again and waits for ever: better to end at once.
test: setup-dev ## Run all tests (PYTEST_ARGS="-k name" for some)
	@CHROMIUM="$$(tools/chromium.sh)" OMP_NUM_THREADS=$(THREADS) MKL_NUM_THREADS=$(THREADS) TOKENIZERS_PARALLELISM=false \
		$(BIN)/pytest -n $(WORKERS) --dist loadfile --max-worker-restart 0 $(PYTEST_ARGS)

lint: $(VENV)/.autolabel-dev ## Check style and formatting
	@$(BIN)/ruff check $(wildcard $(SOURCES))
	@$(BIN)/ruff format --check $(wildcard $(SOURCES))

check: lint ## Check style, types and the direction of imports
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.autolabel-dev ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --fix $(wildcard $(SOURCES))
	@$(BIN)/ruff format $(wildcard $(SOURCES))

bench: setup-dev ## Measure speed (BENCH_ARGS="--quick" for minutes, "startup cheap" for some)
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

train-starter: setup-dev ## Train the bundled models anew (minutes on a GPU, hours on a CPU, resumable)
	@$(BIN)/python -m training.train_all $(TRAIN_ARGS)

lock: $(VENV)/.autolabel-dev ## Write the pins anew: the newest versions that suit each other
	@$(COMPILE) --all-extras --group dev --no-emit-package opencv-python --output-file constraints.txt pyproject.toml
	@$(COMPILE) --output-file tools/label-studio.txt tools/label-studio.in
	@! grep -nE '://|@' constraints.txt tools/label-studio.txt

wheel: $(VENV)/.autolabel-dev ## Build the wheel into dist/
	@$(BIN)/uv build --quiet --wheel && ls -l dist/*.whl

clean: ## Remove what was built and cached; keeps runs/ and the environments
	@rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
