# `make demo` and `make test` need Python >= 3.10 with pip, and make; everything else is fetched into this folder.
PYTHON ?= python3
ARGS ?=
# A checkout of Detectron2's main branch, for `make test-official`.
DETECTRON2 ?=

UV_MINIMUM := 0.9.0
OWN_UV := .tools/uv/bin/uv
SET_UP := .venv/.set-up
DOCS := .venv-docs/.set-up
OFFICIAL := .venv-official/.set-up

export UV_PROJECT_ENVIRONMENT := .venv
export UV_HTTP_TIMEOUT ?= 300
# Once while setting up, not in each process: importing PyTorch from sources alone takes 10 s.
export UV_COMPILE_BYTECODE ?= 1
# Advertisements that plugins of mkdocs print with each build.
export NO_MKDOCS_2_WARNING := 1
export DISABLE_MKDOCS_2_WARNING := true

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-official coverage lint format docs docs-serve clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' Makefile
	@echo 'PYTHON=python3.12 chooses the Python, ARGS="-k focal" is handed on to pytest.'

setup: $(SET_UP)  ## make .venv with everything in it (first time: about 3 GB)

demo: $(SET_UP)  ## train a small FCOS on synthetic images, evaluate it, write output/demo
	.venv/bin/fcos demo --output output/demo

test: $(SET_UP)  ## run the tests, slow ones left out
	.venv/bin/python -m pytest -m "not slow" $(ARGS)

test-all: $(SET_UP)  ## run all tests
	.venv/bin/python -m pytest $(ARGS)

coverage: $(SET_UP)  ## run the tests and say which lines of the package they never reach
	.venv/bin/python -m pytest -m "not slow" --cov --cov-report=term --cov-report=html:output/coverage $(ARGS)

lint: $(SET_UP)  ## check style, formatting and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

format: $(SET_UP)  ## correct style and formatting
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

docs: $(DOCS)  ## build the documentation into site/; fails on broken links
	.venv-docs/bin/python -m mkdocs build --strict --quiet
	@echo 'Wrote site/index.html.'

docs-serve: $(DOCS)  ## show the documentation at http://127.0.0.1:8000 and follow changes
	.venv-docs/bin/python -m mkdocs serve

ifeq ($(DETECTRON2),)
test-official:  ## run all tests beside a compiled Detectron2: make test-official DETECTRON2=/path/to/checkout
	@echo 'Skipped: name a checkout of Detectron2, make test-official DETECTRON2=/path/to/detectron2.'
else
test-official: $(OFFICIAL)
	.venv-official/bin/python -m pytest $(ARGS)
endif

clean:  ## remove environments, .tools, the site and all caches; output/ stays
	rm -rf .venv .venv-docs .venv-official .tools dist site .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage*
	find fcos_d2 configs projects_tools tests docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The uv on PATH where it is new enough, else one that pip puts into .tools, which externally managed Pythons allow too.
# PYTHON makes .venv where the package supports it; otherwise uv finds or downloads a Python that it supports.
define find_uv
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
fi
endef

$(SET_UP): pyproject.toml
	@set -e; $(find_uv); \
	echo 'Setting up .venv. The first time about 3 GB are downloaded, PyTorch with CUDA above all; later it is instant.'; \
	"$$uv" sync --extra detectron2 $${python:+--python "$$python"}; \
	touch $@

# The site is made from the text of the package, so PyTorch and Detectron2 are not needed for it.
$(DOCS): pyproject.toml
	@set -e; $(find_uv); \
	"$$uv" venv --quiet --allow-existing $${python:+--python "$$python"} .venv-docs; \
	"$$uv" pip install --quiet --python .venv-docs --group docs; \
	touch $@

# Compiling takes a C++ compiler and some minutes. PyTorch is the one of .venv, which [tool.uv] pins.
$(OFFICIAL): pyproject.toml
	@set -e; $(find_uv); \
	test -f "$(DETECTRON2)/setup.py" || { echo 'DETECTRON2=$(DETECTRON2) is no checkout of Detectron2: it has no setup.py.' >&2; exit 1; }; \
	"$$uv" venv --allow-existing $${python:+--python "$$python"} .venv-official; \
	"$$uv" pip install --python .venv-official --group official --editable .; \
	MAX_JOBS=2 "$$uv" pip install --python .venv-official --no-build-isolation "$(DETECTRON2)"; \
	touch $@
