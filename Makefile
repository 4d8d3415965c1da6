# `make demo` and `make test` are all that a fresh machine needs; `make help` lists the rest.
#
# LIBTORCH=DIR or SPOTSWEEP_PYTHON_TORCH=python3 names a libtorch 2.11.0 that is there already; else its CPU part is
# fetched into the user's cache, once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

comma := ,
CARGO ?= cargo
PYTHON ?= python3
DEMO_WORKERS ?= 2
DEMO_SWEEP ?= examples/fashion-ladder.yaml
CARGO_TARGET_DIR ?= target

# torch-sys would ask Python, or link statically, if these were set.
unexport LIBTORCH_USE_PYTORCH LIBTORCH_STATIC LIBTORCH_INCLUDE LIBTORCH_LIB

# Before a command that builds the trainer, which then knows its libtorch by path. In two steps, so that a failure counts.
WITH_TORCH = LIBTORCH="$$($(PYTHON) deploy/libtorch/fetch.py --print)"; export LIBTORCH;

# With the tests of the web page where there is a browser to drive: chromium and chromedriver.
TEST_FEATURES := spotsweep-tests/libtorch$(if $(shell command -v chromedriver),$(comma)spotsweep-tests/browser)

RELEASE = $(CARGO_TARGET_DIR)/release
DEBUG = $(CARGO_TARGET_DIR)/debug
PROGRAMS = -p spotsweep-coordinator -p spotsweep-worker -p spotsweep-trainer

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: demo
demo: build ## fetch libtorch and Fashion-MNIST, build, run a sweep of five models, print the results
	@$(WITH_TORCH) \
	$(RELEASE)/spotsweep data get fashion-mnist; \
	$(RELEASE)/spotsweep run $(DEMO_SWEEP) --workers $(DEMO_WORKERS)

.PHONY: build
build: tools ## build the three programs, optimised
	@$(WITH_TORCH) $(CARGO) build --release --locked $(PROGRAMS)

.PHONY: nccl
nccl: ## build the library for NCCL, beside the trainer; LIBTORCH or SPOTSWEEP_PYTHON_TORCH names a libtorch with CUDA
	@$(PYTHON) deploy/libtorch/nccl.py --into $(RELEASE)

.PHONY: test
test: tools ## run every check and test; the last line says how many passed and failed
	@MAKE="$(MAKE)" $(PYTHON) .ci/tally.py test-python fmt clippy deny test-rust test-exports

.PHONY: lint
lint: fmt clippy deny ## rustfmt, clippy with warnings as errors, cargo-deny where it is installed

.PHONY: fmt
fmt:
	@$(CARGO) fmt --all --check

# All crates at once, as in test-rust: the same features, so that dependencies are compiled once.
.PHONY: clippy
clippy:
	@$(WITH_TORCH) $(CARGO) clippy --quiet --locked --workspace --features $(TEST_FEATURES) --all-targets -- -D warnings

.PHONY: deny
deny:
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --locked check bans licenses sources; \
	else echo "skipped: cargo-deny is not installed (cargo install --locked cargo-deny)"; fi

# Not part of the tests: it asks the network, and its answer changes without a change here.
.PHONY: advisories
advisories: ## known vulnerabilities of the dependencies
	@$(CARGO) deny --locked check advisories

.PHONY: test-python
test-python:
	@$(PYTHON) -m unittest discover -s .ci
	@$(PYTHON) -m unittest discover -s deploy/libtorch/tests
	@for python in $$($(PYTHON) .ci/pythons.py); do \
		echo "the Python package under $$($$python --version)"; \
		$$python -m unittest discover -s worker/python/tests -t worker/python; \
	done

# The programs first: the end-to-end tests run them, and the tests of training read Fashion-MNIST.
.PHONY: test-rust
test-rust:
	@command -v chromedriver >/dev/null || echo "skipped: no chromedriver, so the web page is not tested (Debian: apt-get install chromium chromium-driver)"
	@$(WITH_TORCH) \
	$(CARGO) build --quiet --locked --workspace --features $(TEST_FEATURES) --bins; \
	$(DEBUG)/spotsweep data get fashion-mnist; \
	SPOTSWEEP_PROGRAMS_BUILT=1 $(CARGO) test --locked --workspace --features $(TEST_FEATURES) --no-fail-fast

# What reads exports (pandas, pyarrow, TensorBoard, MLflow) is fetched into the user's cache, once; SPOTSWEEP_READERS_PYTHON
# names a Python that has it.
.PHONY: test-exports
test-exports:
	@$(WITH_TORCH) \
	$(CARGO) build --quiet --locked --workspace --features $(TEST_FEATURES) --bins; \
	SPOTSWEEP_PROGRAMS=$(DEBUG) $(PYTHON) tests/python/readers.py -W ignore -m unittest discover -s tests/python

# SPOTSWEEP_BENCH_PYTHON=PYTHON, or SPOTSWEEP_PYTHON_TORCH, names a Python with torch 2.11 to train beside.
.PHONY: bench
bench: tools ## measure, print a table and write it as JSON
	@$(WITH_TORCH) \
	$(CARGO) build --release --locked --workspace --features spotsweep-tests/browser --bins; \
	$(RELEASE)/spotsweep data get fashion-mnist; \
	export SPOTSWEEP_PROGRAMS_BUILT=1 SPOTSWEEP_BENCH_PYTHON="$${SPOTSWEEP_BENCH_PYTHON:-$${SPOTSWEEP_PYTHON_TORCH:-python3}}"; \
	$(RELEASE)/bench

.PHONY: tools
tools:
	@need() { command -v "$$1" >/dev/null || { echo "error: there is no $$1" >&2; echo "hint: $$2" >&2; exit 1; }; }; \
	need $(CARGO) "install Rust 1.95 or newer, with rustup"; \
	need $(PYTHON) "Debian: apt-get install python3 python3-pip"; \
	need "$${CC:-gcc}" "Debian: apt-get install gcc libc6-dev"; \
	need "$${CXX:-c++}" "libtorch's glue is C++; Debian: apt-get install g++"
