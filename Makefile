# Two commands do everything on a fresh Debian or Ubuntu machine with root or sudo: `make demo` and `make test`.
SHELL := /bin/sh
PYTHON := .venv/bin/python
# A mirror or a proxy may have a certificate that this machine knows and uv does not.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= 1
endif

.PHONY: help demo demo-down test lint types unit sanity importer machine molecule bench-rollout bench-judge bench-serving soak chaos \
	collection setup lock clean

help: ## Show these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: setup ## Bring up a fleet of containers and deploy three versions of a model under load
	@$(PYTHON) -m testbed.demo

demo-down: setup ## Remove all that the demo made; Docker and the wheels in ~/.cache/modelfleet stay
	@$(PYTHON) -m testbed.demo --down

test: setup ## Everything, with the time of each stage (MINUTES=84 to leave out what would end later)
	@$(PYTHON) tests/run.py $(if $(MINUTES),--minutes $(MINUTES))

unit: setup ## Unit tests, of the collection and of the model server
	@$(PYTHON) tests/run.py unit app

lint types sanity importer machine molecule: setup ## One stage of the tests
	@$(PYTHON) tests/run.py $@

bench-rollout: setup ## Requests lost and time taken by each strategy, on the demo's fleet
	@PYTHONPATH=.collections $(PYTHON) -m benchmarks.rollout

bench-judge: setup ## How often the canary's judge is wrong, on simulated traffic
	@PYTHONPATH=.collections nice -n 15 $(PYTHON) -m benchmarks.judge

chaos: setup ## Break things in the middle of rollouts, and count what clients lose (an hour and more; MINUTES=10 for less)
	@PYTHONPATH=.collections $(PYTHON) -m benchmarks.chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

bench-serving: setup ## Requests a second of the model server beside other ones, each in its own environment
	@PYTHONPATH=.collections $(PYTHON) -m benchmarks.serving

soak: setup ## Whether the model server's memory grows under ten minutes of load (MINUTES=5; SCORER=native for scikit-learn itself)
	@PYTHONPATH=.collections $(PYTHON) -m benchmarks.serving soak $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(SCORER),--scorer $(SCORER))

collection: setup ## Build the collection's tarball into dist/
	@.venv/bin/ansible-galaxy collection build --force --output-path dist

lock: ## Pin the packages of requirements.in, and of the benchmark's peers, anew
	@.venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header --no-emit-index-url \
		requirements.in --output-file requirements.txt
	@for peer in $(patsubst %/requirements.in,%,$(wildcard benchmarks/serving/peers/*/requirements.in)); do \
		{ cat "$$peer/requirements.in"; grep '^scikit-learn==' requirements.txt; } | \
		.venv/bin/uv pip compile --quiet --upgrade --python-version 3.11 --no-header --no-annotate \
			--no-emit-index-url - --output-file "$$peer/requirements.txt" || exit 1; \
	done

setup: .venv/ready ## The checkout's own environment in .venv

.venv/ready: requirements.txt app/pyproject.toml testbed/setup.sh
	@testbed/setup.sh
	@touch $@

clean: demo-down ## Remove what the targets above made in this checkout
	@rm -rf .cache .collections .mypy_cache .pytest_cache .ruff_cache .testbed .venv dist
