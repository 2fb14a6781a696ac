# One way to do each thing: people, hooks and CI call these targets. `make` alone lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Everything that the extension is built from: it is rebuilt when one of these changes.
RUST := Cargo.toml Cargo.lock pyproject.toml $(shell find rust -name '*.rs')

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: tools
tools:
	@missing=; \
	command -v cargo >/dev/null || missing+=$$'\n  the Rust toolchain 1.89 or newer (cargo), see https://rustup.rs'; \
	command -v $(PYTHON) >/dev/null || missing+=$$'\n  CPython 3.11 or newer ($(PYTHON)); name another with make PYTHON=...'; \
	command -v cc >/dev/null || missing+=$$'\n  a C compiler (cc), which the Rust linker needs'; \
	if [ -n "$$missing" ]; then echo "jv5kit cannot be built here; this is missing:$$missing" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11), "%d.%d" % sys.version_info[:2]' 2>/dev/null \
	|| { echo "jv5kit needs CPython 3.11 or newer with venv; $(PYTHON) is $$($(PYTHON) -V 2>&1) (on Debian: python3-venv)" >&2; exit 1; }

$(BIN)/pip: | tools
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'

# A stamp a step: a second run does nothing twice.
$(VENV)/build.stamp: $(RUST) | $(BIN)/pip
	@echo "Installing jv5kit into $(VENV)" >&2
	$(BIN)/pip install --quiet 'maturin>=1.9,<2'
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pip install --quiet --no-build-isolation --editable .
	@touch $@

# The tests compare with torch and transformers, and try the graph of hnswlib, which comes as source.
$(VENV)/test.stamp: pyproject.toml $(VENV)/build.stamp
	@command -v c++ >/dev/null && $(PYTHON) -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
	|| { echo "the tests need a C++ compiler (c++) and CPython's headers (on Debian: g++ and python3-dev)" >&2; exit 1; }
	$(BIN)/pip install --quiet --group test --group lint
	@touch $@

$(VENV)/bench.stamp: pyproject.toml $(VENV)/build.stamp
	$(BIN)/pip install --quiet --group bench
	@touch $@

.PHONY: build
build: tools $(VENV)/build.stamp ## Make the virtual environment .venv and install jv5kit

.PHONY: test
test: tools $(VENV)/test.stamp ## Run every test, Rust and Python
	cargo test --quiet
	$(BIN)/python -m pytest

.PHONY: lint
lint: tools $(VENV)/test.stamp ## Check formatting and style, Rust and Python
	cargo fmt --check
	cargo clippy --quiet --all-targets --all-features -- -D warnings
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet

.PHONY: types
types: tools $(VENV)/test.stamp ## Check the types, and the stub of the Rust module
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest jv5kit._native

.PHONY: format
format: tools $(VENV)/test.stamp ## Format all code
	cargo fmt
	$(BIN)/ruff check --quiet --fix
	$(BIN)/ruff format --quiet

.PHONY: bench
bench: tools $(VENV)/bench.stamp ## Compare the kernels with FAISS, and write the table (README.md too); `cargo bench` has each kernel
	$(BIN)/python benches/compare.py --output benches/results/$$(date +%F).md --output README.md

.PHONY: bench-encode
bench-encode: tools $(VENV)/bench.stamp ## Compare the encoder with its peers, and write the table (README.md too); takes an hour
	$(BIN)/python benches/encode.py --output benches/results/encode/$$(date +%F).md --output README.md

.PHONY: bench-train
bench-train: tools $(VENV)/bench.stamp ## Compare training with sentence-transformers' trainer, and write the table (README.md too)
	$(BIN)/python benches/train.py --output benches/results/train/$$(date +%F).md --output README.md

.PHONY: bench-serve
bench-serve: tools $(VENV)/bench.stamp ## Compare the server with the encoder that it serves
	$(BIN)/python benches/serve.py

docs.jsonl: examples/stdlib_docs.py | $(VENV)/build.stamp
	$(BIN)/python examples/stdlib_docs.py $@

# An interrupted run is taken up where it stopped; documents that were gathered anew are indexed anew.
$(VENV)/demo.stamp: docs.jsonl $(if $(wildcard docs.jv5/index.sqlite),,docs.jsonl.again)
	@append=; if [ docs.jv5/index.sqlite -nt docs.jsonl ]; then append=--append; else rm -rf docs.jv5; fi; \
	echo "jv5kit index docs.jsonl --binary --dim 256 $$append" >&2; \
	$(BIN)/jv5kit index docs.jsonl --binary --dim 256 $$append
	@touch $@

.PHONY: docs.jsonl.again
docs.jsonl.again:

.PHONY: demo
demo: tools $(VENV)/build.stamp $(VENV)/demo.stamp ## Index the standard library's documentation and ask it something
	@echo 'jv5kit search "read the members of a zip archive"' >&2
	@$(BIN)/jv5kit search --index docs.jv5 "read the members of a zip archive"
