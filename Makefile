# Everything below works from a fresh clone with Python >= 3.11, git, make and a C compiler.

PYTHON ?= python3
BIN := .venv/bin
# Present only while the locked packages are whole: without it an environment was never finished, and starts anew.
LOCKED := .venv/.locked
INSTALLED := .venv/.installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help setup test test-slow quickstart bench-trees bench-decode bench-metrics bench-rank bench-ordering bench-dpoc wheel clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

setup: $(INSTALLED)  ## create .venv and install the locked packages and personalign itself

$(LOCKED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "error: $(PYTHON) is missing or older than Python 3.11, which personalign needs;" \
	         "write for example: make setup PYTHON=python3.12" >&2; exit 1; }
	@test -e $@ && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@rm -f $@
	@echo "installing the locked packages into .venv: PyTorch is the largest, this takes a minute or more"
	$(BIN)/python -m pip install -r requirements.lock
	@touch $@

$(INSTALLED): $(LOCKED) pyproject.toml
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

test: setup  ## lint, format check, types and the tests that take seconds (about 15 minutes at most)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: setup  ## the tests that take minutes or need a GPU
	$(BIN)/python -m pytest -m "slow or gpu"

quickstart: setup  ## train a small model that keeps its persona; needs no data, network or GPU
	$(BIN)/personalign quickstart

bench-trees: setup  ## training on dialogue trees against TRL
	$(BIN)/python benchmarks/bench_trees.py

bench-decode: setup  ## select-then-generate against two passes of generate()
	$(BIN)/python benchmarks/bench_decode.py

bench-metrics: setup  ## the suite of metrics, and judging against sentence-transformers
	$(BIN)/python benchmarks/bench_metrics.py

bench-rank: setup  ## ranking candidates on one trunk against padded batches
	$(BIN)/python benchmarks/bench_rank.py

bench-ordering: setup  ## distances between sessions and their order against plain Python
	$(BIN)/python benchmarks/bench_ordering.py

bench-dpoc: setup  ## preference optimisation with a criterion on trees against three sequences
	$(BIN)/python benchmarks/bench_dpoc.py

wheel: setup  ## build dist/personalign-*.whl
	$(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .

clean:  ## remove caches and built files; keeps .venv and runs/
	rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
