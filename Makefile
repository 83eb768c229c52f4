# make serve: set up and start the service. make test: set up, check and test.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell sha256sum pyproject.toml 2>/dev/null | cut -c1-12)

.PHONY: serve test check format protos protos-release setup setup-dev lock deploy-check image-check release-check clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP)-serve: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --disable-pip-version-check -q -e .
	touch $@

$(STAMP)-dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --disable-pip-version-check -q -e '.[dev]'
	touch $@ $(STAMP)-serve

setup: $(STAMP)-serve
setup-dev: $(STAMP)-dev

serve: setup
	$(BIN)/sdpose serve

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/pytest

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Writes the stubs beside protos/sdpose/v1/pose.proto anew.
protos: setup-dev
	$(BIN)/python tools/protos.py

# Only when a release is made: from now on the contract as it is must not break.
protos-release: setup-dev
	$(BIN)/buf build --exclude-source-info -o protos/released.txtpb

# Writes the images' package lists, deploy/requirements-*.lock, anew.
lock: setup-dev
	$(BIN)/python -m tools.lock

# Real Prometheus, real nginx, two real servers, on loopback; about four minutes.
deploy-check: setup-dev
	$(BIN)/python -m tools.deploy_check

# Builds the CPU image with buildah and runs it; root. What pip needs goes into IMAGE_CHECK.
image-check: setup-dev
	$(BIN)/python -m tools.image_check $(IMAGE_CHECK)

# Wheel and sdist, and the quick start from the wheel in an empty environment.
release-check: setup-dev
	$(BIN)/python -m tools.release_check

clean:
	rm -rf $(VENV) build dist *.egg-info
