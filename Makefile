# Everything that a checkout needs: Python 3.11 or newer, pip and make. All of it lands in .venv, .venv-lowest and
# .venv-docs, which git ignores.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOWEST := .venv-lowest
UV := $(LOWEST)/tools/bin/uv
DOCS := .venv-docs
PAGES := build/pages

.DEFAULT_GOAL := help
.PHONY: help install demo test thorough lowest cluster-test fuzz spread scale lies soak lint format docs clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv with Tercet and all that its tests need

# Where Python lacks ensurepip (as Debian's does without python3-venv), its own pip puts one into the environment.
# The last line compiles the numerical kernels once, so that nothing else has to wait for it.
$(STAMP): pyproject.toml examples/additive/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Tercet needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; }
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]' -e examples/additive
	$(BIN)/python -c 'from tercet.protocols import registry; [registry.get(name) for name in registry.names()]; import tercet.compiled as c; c.load_all()'
	@touch $@

demo: $(STAMP) ## join, train, evaluate and predict on real data, on this machine
	$(BIN)/tercet demo

# A file of tests at a time on each core, in the order of conftest.py; threads of BLAS would only wait for each other.
PARALLEL := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
test thorough lowest spread: export OPENBLAS_NUM_THREADS := 1

test: $(STAMP) ## the test suite
	$(BIN)/pytest $(PARALLEL)
	@$(BIN)/python -m tests.portal.chromium

thorough: $(STAMP) ## the test suite with every case of every test, and ten times as many examples of properties
	$(BIN)/pytest $(PARALLEL) -m 'not scale' --hypothesis-profile thorough
	@$(BIN)/python -m tests.portal.chromium

# What the packages of then deprecate in each other says nothing here. Compiled kernels have a cache of their own,
# since another numba would overwrite that of .venv.
lowest: export NUMBA_CACHE_DIR := $(CURDIR)/$(LOWEST)/kernels
lowest: $(LOWEST)/.installed ## a smoke test with Python 3.11 and the lowest versions that pyproject.toml allows
	$(LOWEST)/python/bin/pytest -m 'smoke and not thorough' $(PARALLEL) -p no:cacheprovider \
		 $(addprefix -W ignore::,DeprecationWarning PendingDeprecationWarning FutureWarning)

# uv, which comes from PyPI as all else does, finds the lowest versions; should there be no Python 3.11, it fetches one.
$(LOWEST)/.installed: pyproject.toml examples/additive/pyproject.toml
	rm -rf $(LOWEST)
	$(PYTHON) -m venv --without-pip $(LOWEST)/tools
	$(PYTHON) -m pip --python $(LOWEST)/tools/bin/python install --disable-pip-version-check uv
	$(UV) venv --python 3.11 $(LOWEST)/python
	$(UV) pip install --system-certs --python $(LOWEST)/python/bin/python --resolution lowest-direct -e '.[test]' -e examples/additive
	@touch $@

cluster-test: $(STAMP) ## nodes as processes in network namespaces, with owners, an analyst, PostgreSQL, crashes, restarts
	$(BIN)/pytest -m '' tests/nodes tests/storage

fuzz: $(STAMP) ## ten million changed inputs for whatever decodes what comes from outside
	$(BIN)/python -m tests.fuzz.campaign

scale: $(STAMP) spread ## the tests on large inputs, and those of `spread`, which take long
	$(BIN)/pytest -m scale

# Tables of more than 128 rows are spread over the workers there.
SPREAD := tests/ml tests/statistics
spread: $(STAMP) ## joins, fits, metrics, sorts and groups with 1, 2 and 3 workers a party under three protocols
	for protocol in replicated shamir rep4; do for workers in 1 2 3; do \
		$(BIN)/pytest $(PARALLEL) --workers $$workers --protocol $$protocol $(SPREAD) || exit; \
	done; done

lies: $(STAMP) ## lies of one node of four in whole runs, TERCET_LIES (200) of them
	$(BIN)/python -m tests.soak.lies

soak: $(STAMP) ## random plans and random faults, for TERCET_SOAK_MINUTES (20); TERCET_LOSSES (30) of workers
	$(BIN)/python -m tests.soak
	$(BIN)/python -m tests.soak.workers

lint: $(STAMP) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## rewrite the code in the house's layout
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# The API reference is read from the source, so Tercet itself and its kernels are not needed. ruff lays out signatures.
docs: $(DOCS)/.installed ## the site with all pages and the API reference, in site/; a broken link is an error
	$(DOCS)/bin/python docs/tools/pages.py $(PAGES)
	PATH="$(CURDIR)/$(DOCS)/bin:$$PATH" mkdocs build --strict

$(DOCS)/.installed: pyproject.toml
	rm -rf $(DOCS)
	$(PYTHON) -m venv --without-pip $(DOCS)
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' > $(DOCS)/requirements.txt
	$(PYTHON) -m pip --python $(DOCS)/bin/python install --disable-pip-version-check -r $(DOCS)/requirements.txt
	@touch $@

clean: ## remove .venv and caches
	rm -rf $(VENV) $(LOWEST) $(DOCS) $(PAGES) site .mypy_cache .ruff_cache .pytest_cache .hypothesis
