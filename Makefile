# Every target sets up what it needs. `make` lists them.
PYTHON ?= python3
BIN := .venv/bin
THREADS ?= 2
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help setup train test test-fast check bench notebooks docs clean

help:            ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

.venv/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs,sweep,annotate,endpoint,filters,serve]'
	touch $@

setup: .venv/.done  ## virtual environment in .venv with the pinned versions

train: setup  ## the main job: a reward model on the embedded default
	$(BIN)/python train.py

test: setup  ## all tests, two processes of one thread each
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: setup ## tests that train nothing and start no process
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

check: setup  ## lint, format, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## all benchmarks, side by side with what others use; results in benchmarks/results
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	for name in train_step grouped growth score_pool overhead; do \
		OMP_NUM_THREADS=$(THREADS) $(BIN)/python benchmarks/$$name.py --threads $(THREADS) || exit 1; done
	for name in evaluation label_scale aggregation select_pool; do $(BIN)/python benchmarks/$$name.py || exit 1; done

notebooks: setup  ## execute all notebooks in order; results in runs/notebooks, sources untouched
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[notebooks]'
	mkdir -p runs/notebooks
	cp notebooks/*.ipynb runs/notebooks/
	$(BIN)/jupyter execute --inplace runs/notebooks/*.ipynb

docs: setup      ## the site of the documentation in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

clean: setup  ## remove runs and caches, keep the environment
	rm -rf runs site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
