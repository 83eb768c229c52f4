# make serve: set up and start the service. make test: set up, check and test.
# make PYTHON=...: the Python to set up with; by default the newest suitable one.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
# What is installed follows from these; a change of one sets up again, and so does a lost Python.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml deploy/*.lock tools/set_up.py | cksum | cut -d' ' -f1)$(notdir $(PYTHON))
$(shell $(BIN)/python -c '' 2>/dev/null || rm -f $(VENV)/.installed-*)

# $(call set_up,KIND)
define set_up
@python=$$(sh tools/find_python.sh $(PYTHON)) && "$$python" tools/set_up.py $(1)
@touch $@
endef

.PHONY: serve test check test-all format protos protos-release setup setup-dev setup-all lock trust licences sbom deploy-check compose-check release-check clean

# Three environments in one folder, each with all of the one before.
setup: $(STAMP)-serve
setup-dev: $(STAMP)-dev
setup-all: $(STAMP)-all

$(STAMP)-serve:
	$(call set_up,serve)

$(STAMP)-dev:
	$(call set_up,dev)
	@touch $(STAMP)-serve

$(STAMP)-all:
	$(call set_up,dev-all)
	@touch $(STAMP)-dev $(STAMP)-serve

serve: setup
	@$(BIN)/sdpose serve

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 --package sdpose_client
	$(BIN)/lint-imports --cache-dir $(VENV)/cache/imports

# -n 2: most tests wait for a service or a process as long as they compute.
test: check
	$(BIN)/pytest -n 2 --durations 20
	$(BIN)/python -m tools.readme README.md

# What `make test` leaves out: Ray, browsers, balancers, training until it fits, long examples. In fixed order: in random order
# the last of three starts of Ray in one process timed out, twice of two runs.
test-all: setup-all
	$(BIN)/pytest --slow --durations 20 -p no:randomly
	$(BIN)/python -m tools.readme README.md docs/which_way.md docs/client.md docs/recipes.md docs/library.md \
		docs/archives.md docs/own_photos.md

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Writes the stubs of protos/sdpose/v1/pose.proto again, in client/sdpose_client/v1.
protos: setup-dev
	$(BIN)/python tools/protos.py

# Only when a release is made: from now on the contract as it is must not break.
protos-release: setup-dev
	$(BIN)/buf build --exclude-source-info -o protos/released.txtpb

# Writes the package lists, deploy/requirements-*.lock, again.
lock: setup-all
	$(BIN)/python -m tools.lock

# Faults, damaged inputs, values in fields, an overload, hostile clients and a long run, in one table; more than an hour.
trust: setup-all
	$(BIN)/python -m tools.trust

# The licences in NOTICE, after a change of the packages.
licences: setup-dev
	$(BIN)/python -m tools.licences

# What is installed here, as CycloneDX: sbom.cdx.json.
sbom: setup-dev
	$(BIN)/cyclonedx-py environment $(BIN)/python --output-file sbom.cdx.json

# Real Prometheus, real nginx, two real servers, on loopback; about four minutes.
deploy-check: setup-all
	$(BIN)/python -m tools.deploy_check

# Builds the CPU image and runs docker-compose.yml by Podman; root; options in COMPOSE_CHECK. Five
# minutes, the first time about twenty.
compose-check: setup-dev
	$(BIN)/pip install --quiet --disable-pip-version-check podman-compose==1.6.0
	$(BIN)/python -m tools.compose_check $(COMPOSE_CHECK)

# Wheels and sdists, and the quick start from the wheels in empty environments.
release-check: setup-all
	$(BIN)/python -m tools.release_check

clean:
	rm -rf $(VENV) build dist *.egg-info client/build client/dist client/*.egg-info
