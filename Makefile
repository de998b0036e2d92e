# Every target makes the virtual environment that it needs; the second time that takes no time.
# A machine needs Python (3.11 or later), make and git, nothing else.

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
ARGS    ?=

LOWEST  := $(VENV)-lowest
NEWEST  := $(VENV)-newest
BIN     := $(VENV)/bin
PINS    := constraints/ci.txt
OLDEST  := constraints/lowest.txt
NEWER   := python3.14 python3.13 python3.12
INSTALL := -m pip install --quiet --disable-pip-version-check
# Modules are compiled when they are imported, which few of those of torch are.
INSTALL_FOR_TESTS := $(INSTALL) --no-compile

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-lowest test-newest check lint types imports format docs public-names clean distclean \
  environment environment-docs environment-lowest environment-newest same-python

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-22s %s\n", $$1, $$2 }'

demo: $(VENV)/.package  ## Train a model on real cells and write figures to demo-output/
	$(BIN)/cellvae demo --out demo-output $(ARGS)

# One thread a worker: the tests are many and small.
test test-fast test-lowest test-newest: export OMP_NUM_THREADS = 1
test test-fast test-lowest test-newest: export MKL_NUM_THREADS = 1

test: $(VENV)/.kernels  ## Run the tests; make test ARGS="-k latent" runs some
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-fast: $(VENV)/.kernels  ## Run the tests that train no model, in less than two minutes
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not trains and not slow" $(ARGS)

# Callbacks depend on the versions of Lightning and torch in the same way for all models: they run
# with one that makes steps in blocks, one of several modalities and the one of Pyro.
MODELS_WITH_CALLBACKS := ((SCVI or MULTIVI or AmortizedLDA) and not LinearSCVI)

test-lowest: $(LOWEST)/.kernels  ## Run the tests of data, of every model and every callback with the oldest supported packages
	$(LOWEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal -p no:cacheprovider -m "not slow" \
	  -k "not test_callbacks or $(MODELS_WITH_CALLBACKS)" \
	  -o filterwarnings=default --disable-warnings tests/data tests/contract $(ARGS)

# Tests of what touches pandas, AnnData, scanpy, zarr and numpy, and of every model once. There are
# no pins.
test-newest: $(NEWEST)/.kernels  ## Run the tests that touch other packages with the newest of these, on the newest Python found
	$(NEWEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal -p no:cacheprovider -m "not slow" \
	  $(addprefix tests/,cli contract/test_models.py data evaluation inference persistence plotting report) $(ARGS)

check: lint types imports test  ## Everything that must hold: lint, types, imports, tests

lint: $(VENV)/.dev  ## Check style and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/.dev  ## Check types
	$(BIN)/mypy

imports: $(VENV)/.dev  ## Check who imports whom
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev  ## Put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs  ## Build the documentation in docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# The environments of the targets above, without running anything.
environment: $(VENV)/.dev
environment-docs: $(VENV)/.docs
environment-lowest: $(LOWEST)/.test
environment-newest: $(NEWEST)/.test

public-names: $(VENV)/.dev  ## Write anew the list of public names that the tests compare with
	$(BIN)/python tests/architecture/surface.py > tests/architecture/public_names.txt

clean:  ## Remove what was built, but no virtual environment
	rm -rf build dist demo-output docs/_build docs/tutorials/*.ipynb coverage.xml .coverage \
	  .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## Remove the virtual environments too
	rm -rf $(VENV) $(LOWEST) $(NEWEST)

# --- Virtual environments: each stamp is older than the pins, or there is nothing to do ---

# An environment stays with the Python that made it.
ifeq ($(origin PYTHON),command line)
$(VENV)/.made: | same-python
same-python:
	@if [ -x $(BIN)/python ] && found=$$(.ci/find-python $(PYTHON)); then \
	  has=$$($(BIN)/python -c 'import sys; print(*sys.version_info[:2], sep=".")'); \
	  asked=$$("$$found" -c 'import sys; print(*sys.version_info[:2], sep=".")'); \
	  [ "$$has" = "$$asked" ] || { \
	    echo "Expected $(VENV) to have Python $$asked; it has $$has." \
	         "Name another folder: make PYTHON=$(PYTHON) VENV=.venv-$$asked" >&2; exit 1; }; \
	fi
endif

# Argument: names of Python, of which the first that runs is taken.
define make-environment
@found=$$(.ci/find-python $(1)) && \
  "$$found" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "Expected Python 3.11 or later as $(1); got: $${found:-none}." \
       "Name another one: make PYTHON=python3.12" >&2; exit 1; }; \
  "$$found" -m venv $(@D)
$(@D)/bin/python $(INSTALL) --upgrade pip
@touch $@
endef

$(VENV)/.made $(LOWEST)/.made:
	$(call make-environment,$(PYTHON))

# Its own names, not PYTHON, which is 3.11 where all three environments are made.
$(NEWEST)/.made:
	@.ci/find-python $(NEWER) > /dev/null || { \
	  echo "The newest packages need Python 3.12 or later: make test-newest NEWER=/path/to/python" >&2; \
	  exit 1; }
	$(call make-environment,$(NEWER))

# torch goes first and by its exact version, so that pip never weighs other builds of it.
$(VENV)/.package: pyproject.toml $(PINS) | $(VENV)/.made
	$(BIN)/python $(INSTALL) "$$(grep '^torch==' $(PINS))"
	$(BIN)/python $(INSTALL) -c $(PINS) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.package
	$(BIN)/python $(INSTALL) -c $(PINS) -e '.[dev]'
	@touch $@

# Compiled ahead by all processors, the kernels are not compiled by every worker of the tests.
KERNELS := $(shell find src/cellvae/kernels/compiled -name '*.py')
%/.kernels: $(KERNELS)
	-$(@D)/bin/cellvae compile-kernels
	@touch $@

$(VENV)/.kernels: $(VENV)/.dev
$(LOWEST)/.kernels: $(LOWEST)/.test
$(NEWEST)/.kernels: $(NEWEST)/.test

$(VENV)/.docs: $(VENV)/.package
	$(BIN)/python $(INSTALL) -c $(PINS) -e '.[docs]'
	@touch $@

$(LOWEST)/.test: pyproject.toml $(OLDEST) | $(LOWEST)/.made
	$(LOWEST)/bin/python $(INSTALL_FOR_TESTS) "$$(grep '^torch==' $(OLDEST))"
	$(LOWEST)/bin/python $(INSTALL_FOR_TESTS) -c $(OLDEST) -e '.[test]'
	@touch $@

# No pins: what pip finds today.
$(NEWEST)/.test: pyproject.toml | $(NEWEST)/.made
	$(NEWEST)/bin/python $(INSTALL_FOR_TESTS) --upgrade --upgrade-strategy eager -e '.[test,annbatch]'
	@touch $@

$(OLDEST):
	@echo "There is no $@: the oldest supported versions are not pinned." >&2; exit 1
