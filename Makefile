# SPDX-License-Identifier: Apache-2.0
# halo-mp: `make run` and `make test` do all the set-up by themselves.
#
# .venv holds the dependencies and an editable install: what runs is what stands here, with the native modules
# built into halo_mp/. Type checkers do not follow package_dir in an editable install, so mypy reads
# build/typed, the package as a regular install lays it out.

SHELL         := /bin/bash
MAKEFLAGS     += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := help

VENV   ?= .venv
PYTHON ?=
ARGS   ?=
TESTS  ?=

BIN     := $(VENV)/bin
# Runs a command as root of a private network when we are not root.
INSIDE  := tools/enter-namespace
NATIVE  := $(shell find native -name '*.[ch]' -o -name '*.py' -o -type d -not -name __pycache__)
C_FILES := $(filter %.c %.h,$(NATIVE))

# setuptools compiles a module's C files all or none; ccache makes that cheap.
ifneq ($(shell command -v ccache),)
ifeq ($(origin CC),default)
export CC := ccache gcc
endif
export CCACHE_DIR    ?= $(CURDIR)/build/ccache
export CCACHE_NOHASHDIR := 1
endif

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 12
	@echo
	@echo '  ARGS="..."        goes on to run and bench'
	@echo '  TESTS="..."       goes on to pytest: TESTS="tests/unit -k arp"'
	@echo '  PYTHON=python3.12 is what a new .venv is made of'

.PHONY: setup
setup: ## Install Debian packages, .venv and native modules, where missing or outdated
	@mkdir -p build
	@flock build/lock $(MAKE) -s build/packages
	@flock build/lock $(MAKE) -s $(VENV)/package
	@flock build/lock $(MAKE) -s $(VENV)/native

build/packages: tools/debian-packages tools/install-debian-packages
	tools/install-debian-packages run
	touch $@

.PHONY: tools
tools: setup ## Install what only checks and tests need, too
	@flock build/lock $(MAKE) -s build/tools

build/tools: tools/debian-packages tools/install-debian-packages tools/unpack-promtool
	tools/install-debian-packages
	tools/unpack-promtool
	touch $@

# A stamp gets its time before the work starts, so that what is edited meanwhile is not taken for built.
$(VENV)/package: setup.cfg setup.py pyproject.toml | build/packages
	echo 'halo-mp: setting up $(VENV)'
	[ -x $(BIN)/pip ] || { python=$$(tools/find-python $(PYTHON)) && "$$python" -m venv $(VENV); }
	touch $@.new $(VENV)/native.new
	$(BIN)/pip install -q 'setuptools>=70.1' 'cffi>=1.15'
	$(BIN)/pip install -q --no-build-isolation -e '.[dev]'
	$(BIN)/python -m compileall -q halo_mp workers supervisor # where the environment forbids Python to do it later
	mv $@.new $@ && mv $(VENV)/native.new $(VENV)/native

$(VENV)/native: $(NATIVE)
	echo 'halo-mp: compiling native/'
	touch $@.new
	$(BIN)/python setup.py -q build_ext --inplace
	mv $@.new $@

.PHONY: run
run: setup ## Start two TAP ports that answer a ping; Ctrl-C stops them
	@$(INSIDE) $(BIN)/python -m halo_mp.supervisor --ports 0,1 $(ARGS)

.PHONY: test
test: tools ## Run lint, the type checker and all tests
	@status=0; $(MAKE) lint || status=$$?; \
	$(INSIDE) $(BIN)/python $(if $(TESTS),-m pytest $(TESTS),tools/run_tests.py) || status=$$?; exit $$status

.PHONY: soak
soak: tools ## Faults of every kind for an hour; MINUTES=60 SEED=... change that
	@SOAK_MINUTES=$(or $(MINUTES),60) SOAK_SEED=$(or $(SEED),20261122) $(INSIDE) $(BIN)/python -m pytest -s tests/soak

.PHONY: lint
lint: tools ## Run ruff, clang-format and mypy, changing nothing
	@$(MAKE) --keep-going lint-python lint-c lint-types

.PHONY: lint-python lint-c lint-types
lint-python:
	$(BIN)/ruff check -q
	$(BIN)/ruff format -q --check

lint-c:
	clang-format --dry-run -Werror --ferror-limit=1 $(C_FILES)

lint-types:
	@rm -rf build/typed
	@$(BIN)/python setup.py -q build_py -d build/typed
	cd build/typed && $(abspath $(BIN))/mypy --config-file ../../setup.cfg --cache-dir ../../.mypy_cache \
		-p halo_mp | sed -E 's#^halo_mp/(workers|supervisor)/#\1/#'; exit $${PIPESTATUS[0]}

.PHONY: format
format: tools ## Let ruff and clang-format rewrite the sources
	$(BIN)/ruff check -q --fix-only
	$(BIN)/ruff format
	clang-format -i $(C_FILES)

.PHONY: bench
bench: tools ## Measure: ARGS="..." says what, ARGS=--help lists it
	@$(INSIDE) $(BIN)/python -m bench $(ARGS)

.PHONY: dist
dist: setup ## Build the sdist, and the wheel from it, into dist/
	$(BIN)/python -m build --no-isolation

.PHONY: clean
clean: ## Remove everything that make has made
	rm -rf $(VENV) build dist *.egg-info halo_mp/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
