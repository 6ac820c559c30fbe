# `make demo` and `make test` need Python >= 3.10 with pip, and make; everything else is fetched into this folder.
PYTHON ?= python3
ARGS ?=

UV_MINIMUM := 0.9.0
OWN_UV := .tools/uv/bin/uv
SET_UP := .venv/.set-up

export UV_PROJECT_ENVIRONMENT := .venv
export UV_HTTP_TIMEOUT ?= 300

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo 'PYTHON=python3.12 chooses the Python, ARGS="-k focal" is handed on to pytest.'

setup: $(SET_UP)  ## make .venv with everything in it (first time: about 3 GB)

demo: $(SET_UP)  ## train a small FCOS on synthetic images, evaluate it, write output/demo
	.venv/bin/fcos demo --output output/demo

test: $(SET_UP)  ## run the tests
	.venv/bin/python -m pytest $(ARGS)

lint: $(SET_UP)  ## check style and formatting
	.venv/bin/ruff check
	.venv/bin/ruff format --check

format: $(SET_UP)  ## correct style and formatting
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

clean:  ## remove .venv, .tools and all caches; output/ stays
	rm -rf .venv .tools dist .pytest_cache .ruff_cache .hypothesis
	find fcos_d2 configs projects_tools tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The uv on PATH where it is new enough, else one that pip puts into .tools, which externally managed Pythons allow too.
# PYTHON makes .venv where the package supports it; otherwise uv finds or downloads a Python that it supports.
$(SET_UP): pyproject.toml
	@set -e; \
	new_enough() { \
	    "$$1" --version 2>/dev/null | awk -v least=$(UV_MINIMUM) \
	        '{split($$2, have, "."); split(least, want, "."); for (i = 1; i < 3; i++) if (have[i] + 0 != want[i] + 0) \
	        exit have[i] + 0 < want[i] + 0} END {if (!NR) exit 1}'; \
	}; \
	if new_enough uv; then uv=uv; \
	elif new_enough $(OWN_UV); then uv=$(OWN_UV); \
	else \
	    echo 'Fetching uv, the package manager, into .tools (about 25 MB).'; \
	    $(PYTHON) -m pip install --disable-pip-version-check --upgrade --target .tools/uv 'uv>=$(UV_MINIMUM)'; \
	    uv=$(OWN_UV); \
	fi; \
	python=; \
	if $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then \
	    python=$$($(PYTHON) -c 'import sys; print(sys.executable)'); \
	fi; \
	echo 'Setting up .venv. The first time about 3 GB are downloaded, PyTorch with CUDA above all; later it is instant.'; \
	"$$uv" sync --extra detectron2 $${python:+--python "$$python"}; \
	touch $@
