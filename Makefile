# Two commands: `make up` sets up, builds, starts the engine, runs the main job and reports;
# `make test` runs every test. Both work on a bare machine that has the package clients.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# outside the clone, so that a second clone starts warm
export CARGO_TARGET_DIR ?= $(HOME)/.cache/sovereign/target
SOVEREIGN := $(CARGO_TARGET_DIR)/debug/sovereign
WITH_SERVERS := $(CARGO_TARGET_DIR)/debug/with-servers
# benchmarks: all, or names
NAME ?= all
DATA ?= .sovereign

.PHONY: help prerequisites build up down test external kills lint bench bench-instructions fuzz schemathesis

help:
	@echo "make up     set up, build, start the engine, run the main job on real input, report"
	@echo "make down   stop the engine cleanly"
	@echo "make test   all tests, with real servers"
	@echo "make kills  two engines and their servers, killed again and again [SOVEREIGN_KILLS=25]"
	@echo "make external  against servers with TLS, logins and rights of their own"
	@echo "make lint   formatting and clippy, warnings as errors"
	@echo "make fuzz   fuzz targets, FUZZ_SECONDS each (60)"
	@echo "make schemathesis  made-up requests to the API, for SCHEMATHESIS_SECONDS (120); fetches it with pip"
	@echo "make bench  side-by-side benchmarks [NAME=replay]; results in target/bench"
	@echo "make bench-instructions  instructions per event beside the kept ones [UPDATE=1]"

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

# dozens of brokers that live for seconds each: compiled once and lightly
test external kills: export KAFKA_JVM_PERFORMANCE_OPTS ?= -XX:+UseSerialGC -XX:TieredStopAtLevel=1
CLASSES = export KAFKA_JVM_PERFORMANCE_OPTS="$$KAFKA_JVM_PERFORMANCE_OPTS $$(tools/kafka-classes $(WITH_SERVERS))"
# most of the time they wait for servers
test external kills: export RUST_TEST_THREADS ?= 3

# every test has PostgreSQL and Kafka; the one that crashes PostgreSQL has it for itself
test: build
	@tools/prerequisites test
	@$(WITH_SERVERS) cargo test --workspace --locked --test crash
	@$(CLASSES) && $(WITH_SERVERS) tools/test-suites
	@$(CLASSES) && cargo test --workspace --locked --test kills

external: build
	@$(CLASSES) && cargo test --workspace --locked --test external

kills: build
	@$(CLASSES) && cargo test --workspace --locked --test kills

schemathesis: build
	@tools/schemathesis

lint:
	@cargo fmt --all --check
	@cargo fmt --manifest-path benches/Cargo.toml --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings

# FUZZ_SECONDS: how long each target runs, after its kept corpus; 1800 before a release. What a run
# finds lies in FUZZ_CORPUS; `cd fuzz && cargo fuzz cmin -s none TARGET` keeps what is new.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= avro recorded_file ndjson registry_routes kafka_record passkeys effect
FUZZ_CORPUS ?= $(CARGO_TARGET_DIR)/fuzz/found
fuzz:
	@cargo fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz is missing: cargo install cargo-fuzz" >&2; exit 1; }
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p "$(FUZZ_CORPUS)/$$target"; \
		cargo fuzz run -s none --target-dir "$(CARGO_TARGET_DIR)/fuzz" "$$target" \
			"$(FUZZ_CORPUS)/$$target" "fuzz/corpus/$$target" \
			-- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -timeout=60 -print_final_stats=1 || exit 1; \
	done

# a workspace of its own: peers bring dependencies that ours must not have
bench:
	@tools/prerequisites bench
	@cargo build --release --locked --manifest-path benches/Cargo.toml --bin bench
	@cargo build --release --locked --bin sovereign
	@$(CARGO_TARGET_DIR)/release/bench $(NAME) --out target/bench

bench-instructions:
	@tools/prerequisites bench-instructions
	@cargo build --release --locked --manifest-path benches/Cargo.toml --bin instructions
	@$(CARGO_TARGET_DIR)/release/instructions $(if $(UPDATE),--update)
