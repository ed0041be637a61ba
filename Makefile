# Everything a user needs, each target sets the environment up by itself. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock
STAMP := $(VENV)/.up-to-date
EXTRAS := corpus,report,dev

PINS ?=
SMOKE_MINUTES ?= 5
SMOKE_DIR ?= build/smoke
DEVICES ?= 1
FRESH ?=

# What matplotlib and Jupyter would put into HOME.
export MPLCONFIGDIR := $(CURDIR)/build/cache/matplotlib
export IPYTHONDIR := $(CURDIR)/build/cache/ipython
export JUPYTER_DATA_DIR := $(CURDIR)/build/cache/jupyter
export JUPYTER_RUNTIME_DIR := $(CURDIR)/build/cache/jupyter

# Threads that wait for each other sleep: spinning, a training step beside another job took three to nine times as long.
# Alone on its machine it is a sixth faster with OMP_WAIT_POLICY=ACTIVE.
OMP_WAIT_POLICY ?= PASSIVE
export OMP_WAIT_POLICY

.DEFAULT_GOAL := help
.PHONY: help setup smoke test check bench notebooks lock resolve clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv from the lock; every other target does it when it is missing or stale

$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one with PYTHON=…" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

smoke: $(STAMP) ## train a tiny StarCoder on real code in minutes [SMOKE_MINUTES=5] [DEVICES=1] [FRESH=1]
	$(BIN)/starcoder smoke --output $(SMOKE_DIR) --minutes $(SMOKE_MINUTES) --devices $(DEVICES) $(if $(FRESH),--fresh true)

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest

check: $(STAMP) ## lint, format, types, lock
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pip check

bench: $(STAMP) ## measure against peers, side by side
	@for file in tests/benchmarks/bench_*.py; do \
	  name=$$(basename $$file .py); echo "== $$name"; \
	  env -u OMP_WAIT_POLICY $(BIN)/python -m tests.benchmarks.$$name || exit 1; done

notebooks: $(STAMP) ## execute the tutorials [SAVE=1 keeps their outputs]
	$(BIN)/jupyter execute $(if $(SAVE),--inplace) notebooks/*.ipynb

lock: ## resolve the newest versions into the lock [PINS='torch==2.14.1' keeps one back]
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check $(PINS) --editable ".[$(EXTRAS)]"
	{ echo "# Made by 'make lock' on $$(build/lock/bin/python --version); CUDA's parts exist on Linux alone."; \
	  build/lock/bin/python -m pip freeze --exclude-editable \
	  | sed -E '/^(nvidia-|cuda-|triton)/ s/$$/ ; sys_platform == "linux"/'; } > $(LOCK)
	rm -rf build/lock

resolve: $(STAMP) ## show that the lock resolves on Python 3.12 and 3.13 too
	@for version in 3.12 3.13; do \
	  $(BIN)/python -m pip install --quiet --dry-run --ignore-installed --python-version $$version --only-binary=:all: \
	    --target build/resolve --requirement $(LOCK) && echo "Python $$version: the lock resolves" || exit 1; done

clean: ## remove everything that the targets made, but .venv
	rm -rf build .mypy_cache .pytest_cache .ruff_cache .hypothesis
