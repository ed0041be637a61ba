# Everything a user needs, each target sets the environment up by itself. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock
STAMP := $(VENV)/.up-to-date
EXTRAS := attribution,attribution-cluster,attribution-exact,corpus,eval,pii,release,report,serve,ray,dev

PINS ?=
SMOKE_MINUTES ?= 5
SMOKE_DIR ?= build/smoke
DEVICES ?= 1
FRESH ?=

CORPUS ?= installed
DATA ?= build/stack
RECIPE ?= starcoderbase
NODES ?=
GPUS ?=
GPU ?= a100-80gb
PRESET ?=
CONTEXT ?=
CODE ?=
MODEL ?= build/smoke/starcoder
INDEX ?= $(dir $(MODEL))trace
STEPS ?= 100
OPTIONS ?=
TASKS ?=
PAPER ?=
BENCHMARKS ?=
REPO ?=
PII ?= build/pii
FINETUNE_DIR ?= build/finetune/$(notdir $(abspath $(CODE)))
RUNS := starcoderbase starcoderbase-7b starcoderbase-3b starcoderbase-1b starcoder santacoder

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
.PHONY: help setup smoke corpus tokenizer shards plan $(RUNS) finetune pii evaluate trace push serve playground test check bench notebooks lock resolve clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv from the lock; every other target does it when it is missing or stale

$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one with PYTHON=…" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

smoke: $(STAMP) ## train a tiny StarCoder on real code in minutes [SMOKE_MINUTES=5] [DEVICES=1] [FRESH=1]
	$(BIN)/starcoder smoke --output $(SMOKE_DIR) --minutes $(SMOKE_MINUTES) --devices $(DEVICES) $(if $(FRESH),--fresh true)

corpus: $(STAMP) ## build a corpus and the page to inspect it [CORPUS=installed|stack|a recipe of yours] [DATA=build/stack] [OPTIONS=]
	$(BIN)/starcoder corpus build --config $(if $(wildcard $(CORPUS)),$(CORPUS),recipes/corpus/$(CORPUS).yaml) --output $(DATA)/corpus $(OPTIONS)
	$(if $(filter stack,$(CORPUS)),,$(BIN)/starcoder corpus inspect --folder $(DATA)/corpus)

tokenizer: $(STAMP) ## train the tokenizer on the corpus in DATA [DATA=build/stack] [OPTIONS=]
	$(BIN)/starcoder tokenizer train --corpus $(DATA)/corpus --output $(DATA)/tokenizer $(OPTIONS)

shards: $(STAMP) ## write that corpus as token shards, mixed as in the paper: train, python, validation [DATA=build/stack] [OPTIONS=]
	$(BIN)/starcoder tokenize --corpus $(DATA)/corpus --tokenizer $(DATA)/tokenizer --output $(DATA)/shards/train --mix paper $(OPTIONS)
	$(BIN)/starcoder tokenize --corpus $(DATA)/corpus --tokenizer $(DATA)/tokenizer --output $(DATA)/shards/python --language python $(OPTIONS)
	$(BIN)/starcoder tokenize --corpus $(DATA)/corpus --tokenizer $(DATA)/tokenizer --output $(DATA)/shards/validation --split validation $(OPTIONS)

plan: $(STAMP) ## memory, time, cost of a run, without a GPU [RECIPE=starcoderbase] [NODES=64] [GPUS=8] [GPU=a100-80gb] [PRESET=] [CONTEXT=]
	$(BIN)/starcoder plan --recipe $(RECIPE) $(if $(NODES),--nodes $(NODES)) $(if $(GPUS),--gpus $(GPUS)) --gpu $(GPU) \
	  $(if $(PRESET),--preset $(PRESET)) $(if $(CONTEXT),--context_length $(CONTEXT))

starcoderbase: ## train by that recipe; also starcoderbase-7b, -3b, -1b, starcoder, santacoder [NODES=1] [GPUS=8] [OPTIONS='--key value']
$(RUNS): $(STAMP)
	$(BIN)/starcoder fit --config recipes/$@.yaml \
	  $(if $(NODES),--trainer.num_nodes $(NODES)) $(if $(GPUS),--trainer.devices $(GPUS)) $(OPTIONS)

finetune: $(STAMP) ## go on from MODEL=build/smoke/starcoder on a repository of yours: CODE=path [STEPS=100] [CONTEXT=256] [GPUS=1] [OPTIONS=] [FRESH=1]
	@test -n "$(CODE)" || { echo "name your repository: make finetune CODE=path" >&2; exit 2; }
	@test $(words $(CODE)) = 1 || { echo "make cannot pass on a path with spaces: make a link to it" >&2; exit 2; }
	$(if $(FRESH),rm -rf $(FINETUNE_DIR))
	$(BIN)/starcoder corpus build --repository $(CODE) --output $(FINETUNE_DIR)/corpus
	$(BIN)/starcoder tokenize --corpus $(FINETUNE_DIR)/corpus --tokenizer $(MODEL) --output $(FINETUNE_DIR)/shards/train
	$(BIN)/starcoder tokenize --corpus $(FINETUNE_DIR)/corpus --tokenizer $(MODEL) --output $(FINETUNE_DIR)/shards/validation \
	  --split validation
	$(BIN)/starcoder fit --config recipes/finetune.yaml --model.init_from $(MODEL) --data.tokenizer $(MODEL) \
	  --data.train $(FINETUNE_DIR)/shards/train --data.validation $(FINETUNE_DIR)/shards/validation \
	  --checkpoint.folder $(FINETUNE_DIR)/checkpoints --trainer.default_root_dir $(FINETUNE_DIR) \
	  --trainer.logger.init_args.save_dir $(FINETUNE_DIR)/metrics --trainer.max_steps $(STEPS) \
	  $(if $(CONTEXT),--data.context_length $(CONTEXT)) $(if $(GPUS),--trainer.devices $(GPUS)) $(OPTIONS)
	$(BIN)/starcoder export --checkpoint $(FINETUNE_DIR)/checkpoints --tokenizer $(MODEL) --output $(FINETUNE_DIR)/model

pii: $(STAMP) ## train a model of names, keys and passwords in code, and measure it beside the rules [PII=build/pii] [OPTIONS='--minutes 14']
	$(BIN)/starcoder corpus build --config recipes/corpus/installed.yaml --pii none --output $(PII)/corpus
	$(BIN)/starcoder tokenizer train --corpus $(PII)/corpus --output $(PII)/tokenizer --vocab_size 4096
	$(BIN)/starcoder pii train --corpus $(PII)/corpus --tokenizer $(PII)/tokenizer --output $(PII)/starpii $(OPTIONS)
	$(BIN)/starcoder pii benchmark --corpus $(PII)/corpus --model $(PII)/starpii

evaluate: $(STAMP) ## run the paper's benchmarks on MODEL=build/smoke/starcoder [TASKS=humaneval,…] [BENCHMARKS=folder] [PAPER=preset] [OPTIONS=]
	$(BIN)/starcoder evaluate $(MODEL) $(if $(TASKS),--tasks $(TASKS)) $(if $(PAPER),--preset $(PAPER)) \
	  $(if $(BENCHMARKS),--data $(BENCHMARKS)) $(OPTIONS)

trace: $(STAMP) ## where does it come from: index the corpus in DATA=build/stack, calibrate, trace [CODE=file] [OPTIONS='--fail-on verbatim']
	$(BIN)/starcoder trace index $(DATA)/corpus --output $(DATA)/trace
	-$(BIN)/starcoder trace calibrate $(DATA)/trace
	$(if $(CODE),$(BIN)/starcoder trace query $(CODE) --index $(DATA)/trace $(OPTIONS))

push: $(STAMP) ## put MODEL=build/smoke/starcoder on the Hugging Face Hub: REPO=owner/name [OPTIONS='--visibility public --gated manual']
	@test -n "$(REPO)" || { echo "name the repository: make push REPO=owner/name" >&2; exit 2; }
	$(BIN)/starcoder push $(MODEL) --repo $(REPO) $(OPTIONS)

serve: $(STAMP) ## an OpenAI-compatible endpoint for MODEL=build/smoke/starcoder [OPTIONS='--port 8000']
	$(BIN)/starcoder serve $(MODEL) $(OPTIONS)

playground: $(STAMP) ## a local page to complete and infill with MODEL=build/smoke/starcoder, and to trace [INDEX=build/smoke/trace] [OPTIONS='--port 8080']
	$(BIN)/starcoder playground $(MODEL) $(if $(wildcard $(INDEX)),--index $(INDEX)) $(OPTIONS)

test: $(STAMP) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: $(STAMP) ## lint, format, types, lock
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pip check

bench: $(STAMP) ## measure against peers, side by side
	@for file in tests/benchmarks/bench_*.py; do \
	  name=$$(basename $$file .py); echo "== $$name"; \
	  env -u OMP_WAIT_POLICY $(BIN)/python -m tests.benchmarks.$$name || exit 1; done

notebooks: $(STAMP) ## execute the tutorials, two at a time [SAVE=1 keeps their outputs]
	@ls notebooks/*.ipynb | OMP_NUM_THREADS=1 xargs -P 2 -I {} sh -c \
	  '$(BIN)/jupyter execute $(if $(SAVE),--inplace) {} || { echo "{} failed" >&2; exit 1; }'

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
