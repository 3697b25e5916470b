# Two commands: `make up` sets up, builds, starts the engine, runs the main job and reports;
# `make test` runs every test. Both work on a bare machine that has the package clients.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# outside the clone, so that a second clone starts warm
export CARGO_TARGET_DIR ?= $(HOME)/.cache/sovereign/target
SOVEREIGN := $(CARGO_TARGET_DIR)/debug/sovereign
WITH_SERVERS := $(CARGO_TARGET_DIR)/debug/with-servers
DATA ?= .sovereign

.PHONY: help prerequisites build up down test lint bench

help:
	@echo "make up     set up, build, start the engine, run the main job on real input, report"
	@echo "make down   stop the engine cleanly"
	@echo "make test   all tests, with real servers"
	@echo "make lint   formatting and clippy, warnings as errors"

prerequisites:
	@tools/prerequisites

# the same packages and features as `make test`, so that nothing is compiled twice
build: prerequisites
	@cargo build --workspace --locked

up: build
	@$(SOVEREIGN) up --ensure --data "$(DATA)"
	@$(SOVEREIGN) trade agents/data/stocks.csv.gz --data "$(DATA)"

down:
	@$(SOVEREIGN) down --data "$(DATA)"

# every test has PostgreSQL and Kafka; the one that crashes PostgreSQL has it for itself
test: build
	@$(WITH_SERVERS) cargo test --workspace --locked --test crash
	@$(WITH_SERVERS) cargo test --workspace --locked --no-fail-fast

lint:
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
