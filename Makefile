# Every target sets up what it needs, on a fresh machine too.  An older python3?  make test PYTHON=python3.12
PYTHON ?= python3
OUT := out/demo
WORKERS ?= 2
THREADS ?= 1
EXTRAS ?= dev

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test test-gpu test-experiments test-all lint bench docs package clean

BIN := .venv/bin
USER_STAMP := .venv/.installed
DEV_STAMP := .venv/.installed-dev
DOCS_STAMP := .venv/.installed-docs
SITE := docs/_build
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
# One thread per worker: two workers that each take every core are slower than one.
PYTEST := QUIETRAY_THREADS=$(THREADS) OMP_NUM_THREADS=$(THREADS) NUMBA_NUM_THREADS=$(THREADS) $(BIN)/pytest -n $(WORKERS)
# Every call of ours checks the shapes and types of what it is given and gives: a third slower.
CHECKED := --jaxtyping-packages=quietray,beartype.beartype
# pip's own words, shortened to one line per package.
BRIEF := awk '/^ *(Collecting|Downloading|Building|Installing|Successfully)/ { sub(/ [(]from .*/, ""); print "  " substr($$0, 1, 100); fflush() }'

help:
	@echo "make demo      simulate a low-dose scan, denoise it, write $(OUT)/report.html"
	@echo "make test      every test but the slow ones"
	@echo "make test-all  these, again with every shape checked, and the slow ones"
	@echo "make test-gpu  those that need a CUDA device"
	@echo "make test-experiments  papers repeated at small scale, up to an hour"
	@echo "make lint      style, types, layers"
	@echo "make bench     the benchmarks"
	@echo "make docs      the documentation site, in $(SITE)/html/index.html"
	@echo "make package   sdist and wheel in dist/, checked, and the wheel used from another folder"
	@echo "make clean     remove caches and the demo's output; keep .venv"

demo: $(USER_STAMP)
	@$(BIN)/quietray demo --out $(OUT)

test: $(DEV_STAMP)
	@$(PYTEST) --dist loadfile

# The same again with shapes checked, then the slow ones.  Those share no fixtures, and few of them take nearly all of
# the time: each goes to the worker that is free.
test-all: test
	@$(PYTEST) $(CHECKED) --dist loadfile
	@$(PYTEST) $(CHECKED) --dist load --maxschedchunk 1 -m slow -o faulthandler_timeout=3600

# What only a machine with a CUDA device can tell; under three minutes there.
test-gpu: $(DEV_STAMP)
	@$(BIN)/pytest -m gpu -o faulthandler_timeout=600

# Whole papers, repeated: hours beside other programs.
test-experiments: $(DEV_STAMP)
	@$(PYTEST) --dist load --maxschedchunk 1 -m experiment -o faulthandler_timeout=7200

lint: $(DEV_STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict src/quietray
	@$(BIN)/lint-imports --no-logo

bench: $(DEV_STAMP)
	@for file in benchmarks/bench_*.py; do \
	  [ -e "$$file" ] || { echo "benchmarks/ holds no bench_*.py yet"; break; }; \
	  echo "$$file"; $(BIN)/python "$$file"; \
	done

# Warnings are errors; notebooks are run, links followed (those to other sites where there is a network).
docs: $(DOCS_STAMP)
	@QUIETRAY_THREADS=$(THREADS) OMP_NUM_THREADS=$(THREADS) NUMBA_NUM_THREADS=$(THREADS) \
	  $(BIN)/sphinx-build -q -W --keep-going -b html -d $(SITE)/doctrees docs $(SITE)/html
	@$(BIN)/python docs/check_site.py $(SITE)/html

# What would be published: nothing is uploaded.
package: $(DEV_STAMP)
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist .
	@$(BIN)/twine check --strict dist/*
	@$(PYTEST) -n 0 -m slow tests/test_package.py

clean:
	rm -rf out/demo build dist docs/_build docs/reference/api docs/reference/api.rst .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "quietray needs Python 3.11 or newer, and $(PYTHON) is not on the PATH;" \
	       "install one, or name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "quietray needs Python 3.11 or newer, got $$($(PYTHON) --version 2>&1) from $(PYTHON);" \
	       "name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

$(USER_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing quietray into .venv (some minutes the first time)"
	@$(PIP) -e . | $(BRIEF)
	@touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing quietray and its test tools into .venv (some minutes the first time)"
	@$(PIP) -e '.[$(EXTRAS)]' | $(BRIEF)
	@touch $(USER_STAMP) $@

$(DOCS_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing quietray and what its site is built with into .venv (some minutes the first time)"
	@$(PIP) -e '.[docs]' | $(BRIEF)
	@touch $(USER_STAMP) $@
