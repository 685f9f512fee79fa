# make help shows the targets. PYTHON=… picks the interpreter (3.11, 3.12 or 3.13).
.DEFAULT_GOAL := help
.PHONY: help demo test check bench lock sbom image clean

VENV := .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
BENCH ?=
ENGINE ?= $(shell for p in podman docker buildah; do command -v $$p && break; done)
BUILD ?= $(if $(filter-out 0,$(shell id -u)),--build-arg UID=$(shell id -u))
OF ?= $(VENV)

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.installed  ## SUPPORT2 (real patients) end to end at ε = 1: budget, bundle, three numbers
	@$(BIN)/python data/demo.py

test: $(VENV)/.installed-dev  ## the tests
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

check: $(VENV)/.installed-dev  ## style, types and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.installed-dev  ## dp-synth beside other synthesizers; BENCH="--table adult --epsilon 1" for a part
	@$(BIN)/python benchmarks/bench.py $(BENCH)

# What uv prints is complete before the file is replaced. setuptools builds the project itself.
lock: $(VENV)/.installed-dev  ## requirements.txt again: all of constraints.txt that synth needs, with hashes
	@mkdir -p build
	@{ grep '^#' requirements.txt && echo && echo "setuptools" | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --constraints constraints.txt --no-header --no-annotate pyproject.toml -; } > build/requirements.txt
	@mv build/requirements.txt requirements.txt

sbom: $(VENV)/.installed-dev  ## build/sbom.json: the packages of .venv, or OF=PATH, as CycloneDX
	@mkdir -p build
	@$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --validate -o build/sbom.json $(OF)
	@echo build/sbom.json

image: requirements.txt  ## a worker's container image by podman, docker or buildah: ENGINE=… BUILD="--build-arg UID=10001"
	@test -n "$(ENGINE)" || { echo "no podman, docker or buildah on PATH; name one: make image ENGINE=/path/to/podman" >&2; exit 2; }
	@$(ENGINE) build --file Containerfile --tag "dp-synth:$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" $(BUILD) .

clean:  ## remove what the targets made, except the virtual environment
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Where Python comes without ensurepip, its own pip fills the environment instead.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11, 3.12 or 3.13 on PATH; name one: make PYTHON=/path/to/python" >&2; exit 2; }
	@echo "making $(VENV) with $(PYTHON)" >&2
	@$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || { $(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing synth into $(VENV), a few minutes the first time" >&2
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing synth and its development tools into $(VENV), a few minutes the first time" >&2
	@$(PIP_INSTALL) -e ".[dev]"
	@touch $@ $(VENV)/.installed
