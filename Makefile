# devgw: `make test` sets up and runs everything, `make demo` shows the main job. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
VENV := .venv
PYTHON := $(VENV)/bin/python
# The contract comes before what is end to end, whose gateway keeps alice's GPU until the last test has run.
CLUSTER_TESTS = $(addprefix tests/,$(addsuffix .py, \
  $(addprefix cluster/test_,manifests bad_input streams faults node_lost move_in) \
  $(addprefix contract/test_,engine dial create placement nodes) $(addprefix e2e/test_,main_job streams run lifecycle)))

.PHONY: help setup test test-cluster test-podman test-docker-rootless test-deb test-packages test-exact mutants-runner docs wheel deb unit lint format demo fuzz clients bench soak-attacks soak bench-runner test-torch test-asyncssh gpu-proof release engine-stop clean

help: ## Say what each target does
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what is missing: a virtual environment, and with root the system's programs
	@tests/setup/install

test: setup ## Lint, then every test on a real engine (started when none answers)
	@tests/setup/run_tests

test-exact: setup ## Every combination that must resume to the same bits, from EXACT_SEED (printed); hours on two cores
	@seed=$${EXACT_SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}; echo "EXACT_SEED=$$seed"; \
	EXACT=all EXACT_SEED=$$seed $(PYTHON) -m pytest -q -p no:cacheprovider -n $${EXACT_WORKERS:-auto} \
	  containers/runner/tests/test_exact_matrix.py containers/runner/tests/test_exact_processes.py

mutants-runner: setup ## Plant each bug of a list in save, resume and the parity gate: a named test must fail (or ONLY="name")
	@$(PYTHON) containers/runner/tests/mutants/mutation.py $(if $(ONLY),"$(ONLY)")

unit: $(VENV)/.installed ## The quick tests alone: no engine, no image
	@$(PYTHON) -m pytest -q -m "not engine and not gpu and not slow" tests

lint: $(VENV)/.installed ## ruff, mypy, the layer rules
	@tests/setup/lint

format: $(VENV)/.installed ## Let ruff rewrite the sources
	@$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix .

test-cluster: setup ## What `make test` leaves out: the gateway's own image, and environments on a Kubernetes cluster of two nodes
	@DEVGW_TEST_ENGINE=docker tests/setup/with_engine $(PYTHON) -m pytest -q -p no:cacheprovider tests/cluster/test_gateway_image.py
	@DEVGW_TEST_ENGINE=docker tests/setup/with_engine env DEVGW_TEST_ENGINE=kubernetes tests/setup/with_cluster \
	  $(PYTHON) -m pytest -q -p no:cacheprovider $(CLUSTER_TESTS)

docs: $(VENV)/.installed ## The pages of docs/ as a site in build/site, readable without a server; fails on a dead link
	@$(PYTHON) -m mkdocs build --strict  # with --quiet a warning would not be counted, and nothing would fail

CONTRACT := $(addprefix tests/contract/test_,$(addsuffix .py, \
  engine confinement limits create dial doors load shared_volumes image_stores compose))
test-podman: setup ## The engines' contract on Debian 13's Podman, first with root, then without
	@DEVGW_TEST_ENGINE=podman tests/setup/with_engine $(PYTHON) -m pytest -q -p no:cacheprovider $(CONTRACT) tests/attacks/test_egress.py
	@DEVGW_TEST_ENGINE=podman DEVGW_TEST_ROOTLESS_UID=61234 tests/setup/with_engine $(PYTHON) -m pytest -q -p no:cacheprovider $(CONTRACT)

test-docker-rootless: setup ## The engines' contract on Debian 13's Docker without root
	@DEVGW_TEST_ENGINE=docker-rootless tests/setup/with_engine $(PYTHON) -m pytest -q -p no:cacheprovider $(CONTRACT)

test-deb: setup ## The Debian package, made and installed in a Debian 12 of its own instead of over this machine's
	@tests/packages/with_debian $(PYTHON) -m pytest -q -p no:cacheprovider tests/packages/test_deb.py

test-packages: setup ## What `make test` leaves out: that package in a Debian 12, the wheel with uv and pipx, Ansible's role on a host
	@tests/packages/with_debian $(PYTHON) -m pytest -q -p no:cacheprovider tests/packages/test_deb.py tests/packages/installers

wheel: $(VENV)/.installed ## The wheel in dist/, with the versions that it was tried with as constraints for pip, pipx and uv
	@deploy/wheel/build

deb: $(VENV)/.installed ## The Debian package in dist/, for this machine's python3 and architecture
	@deploy/deb/build

demo: ## Gateway up, an environment, an SSH tunnel, a notebook login, a cell; on Docker if it answers, else bubblewrap
	@tests/setup/install demo
	@DEVGW_TEST_ENGINE=$${DEVGW_TEST_ENGINE:-auto} tests/setup/with_engine $(PYTHON) -m tests.demo

fuzz: setup ## Hostile bytes against a gateway for FUZZ_SECONDS (600), from FUZZ_SEED; says the seed of what it finds
	@$(PYTHON) -m tests.fuzz

clients: setup ## Move 300 MB both ways with each client that is not OpenSSH, across key exchanges
	@DEVGW_TEST_CLIENT_BYTES=300000000 $(PYTHON) -m pytest -q tests/e2e/test_clients.py

bench: setup ## Measure against OpenSSH on this machine
	@tests/setup/with_engine $(PYTHON) -m tests.benchmarks

soak-attacks: setup ## All attacks of one user at once for SECONDS (600), and what others feel; fails at 300 MiB
	@$(PYTHON) -m tests.soak --seconds $(or $(SECONDS),600)

soak: setup ## A thousand idle users and fifty busy ones for ten minutes
	@$(PYTHON) -m tests.benchmarks.soak

bench-runner: setup ## Measure the training runner on this machine
	@$(PYTHON) -m pip install -q --disable-pip-version-check -e 'containers/runner[bench]'
	@$(PYTHON) containers/runner/benchmarks/bench.py

test-torch: setup ## The training runner's suite on another torch: make test-torch TORCH=2.8.0
	@tests/setup/test_torch $(TORCH)

test-asyncssh: setup ## The SSH server's suite on the newest asyncssh, or on ASYNCSSH=2.25.0
	@tests/setup/test_asyncssh $(ASYNCSSH)

gpu-proof: setup ## On a host with a GPU: every proof that needs one, written into the reference pages
	@$(PYTHON) -m tests.gpu_proof

release: setup ## Check, build and tag VERSION=1.2.3: wheel and sdist in dist/, tag v1.2.3; nothing is uploaded
	@tests/setup/release "$(VERSION)"

engine-stop: ## Stop the private engine the tests started
	@tests/engine/private_engine stop

clean: ## Remove the virtual environment and caches of this checkout
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info

$(VENV)/.installed:
	@tests/setup/install
