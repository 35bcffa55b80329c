# `make` or `make help` explains the targets. Everything is installed into .venv and nowhere else.

PYTHON ?= python3
VENV ?= .venv
# An index that torch alone is taken from. On Linux without an NVIDIA GPU that of the small CPU builds; else
# (and where it does not answer) the usual one, whose Linux build brings CUDA (2.5 GB).
TORCH_INDEX ?= $(shell [ "$$(uname)" = Linux ] && ! [ -e /dev/nvidia0 ] && ! command -v nvidia-smi > /dev/null \
	&& echo https://download.pytorch.org/whl/cpu)
# More arguments: make test ARGS='-k resume', make demo ARGS='--set trainer.max_epochs=3'
ARGS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help setup demo test extras lint crash distributed mutants bench clean

help: ## Explain the targets (this)
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20
	@echo
	@echo "  PYTHON=python3.12   the Python to make .venv with, 3.11 or later (now: $(PYTHON))"
	@echo "  TORCH_INDEX=URL     where torch comes from (now: $(or $(TORCH_INDEX),the usual index))"
	@echo "  ARGS='...'          more arguments for demo, test and bench"

setup: $(READY) ## Make .venv with the pinned dependencies; the other targets do it by themselves

demo: $(READY) ## Train a classifier on scikit-learn's digits, in well under a minute
	$(BIN)/treadle fit examples/digits.yaml $(ARGS)

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest $(ARGS)

extras: $(READY) ## Install every optional library, so that no test skips itself (2 GB)
	$(PIP) -c constraints.txt -e '.[plots,sklearn,export,huggingface,evaluate,tensorboard,wandb,trackio,ray]' \
		mlflow-skinny sqlalchemy alembic sqlparse pandas polars ipykernel nbclient

lint: $(READY) ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

crash: $(READY) ## Kill trainings a thousand times, at every call, and damage their files (ten minutes)
	TREADLE_CRASH=full $(BIN)/python -m pytest tests/crash -s
	$(BIN)/python -m tests.crash.long --kills 1000 $(ARGS)
	$(BIN)/python -m tests.crash.damage --inputs 20000

distributed: $(READY) ## Fail and die at every hook on every rank, and more, under torchrun (twenty minutes)
	TREADLE_DISTRIBUTED=full $(BIN)/python -m pytest tests/distributed $(ARGS)

mutants: $(READY) ## Break the code in planted ways and see that the tests notice each (five minutes)
	$(BIN)/python -m tests.mutants $(ARGS)

bench: $(READY) ## Time steps, data and all around them against the hand-written loop, and against other trainers
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/data_path.py
	$(BIN)/python benchmarks/costs.py
	$(BIN)/python benchmarks/compare.py $(ARGS)

clean: ## Remove .venv, caches and built files; runs are kept
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || \
		{ echo "make: there is no $(PYTHON); install Python 3.11 or later, or name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1); Treadle needs 3.11 or later: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2> /dev/null || test -x $(BIN)/python || \
		{ echo "make: $(PYTHON) cannot make virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; torch is large)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@torch=$$(grep '^torch==' constraints.txt); \
		$(if $(TORCH_INDEX),$(PIP) --no-deps --retries 1 --index-url $(TORCH_INDEX) "$$torch" ||) $(PIP) "$$torch"
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $(READY)
