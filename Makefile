# Xebec. `make up` starts a cluster on this machine, `make test` runs what CI runs.

CARGO ?= cargo
DATA_DIR ?= /var/lib/xebec
export CARGO_TERM_COLOR ?= auto

.PHONY: help up down build test bench clean setup demo-image lint unit e2e

help: ## what there is
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: setup build demo-image ## install what is missing, build, start a node, show a workload answering
	@scripts/up target/release/xebec $(DATA_DIR)

down: ## stop the node that `make up` started and clean up after it
	@scripts/down target/release/xebec $(DATA_DIR)

build: ## release binaries
	$(CARGO) build --release --bins

test: setup lint unit e2e ## format, lints, unit, integration and end-to-end tests: what CI runs

bench: setup ## benchmarks, as JSON lines on standard output
	$(CARGO) build --release --bins
	@scripts/bench

clean: ## remove what was built
	$(CARGO) clean

setup: ## install the Debian packages that are missing
	@scripts/setup

demo-image: ## the image of the examples, from Debian's busybox
	@scripts/demo-image target/images/busybox.tar

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(CARGO) run --quiet -p xtask -- tidy

unit:
	$(CARGO) test --workspace --quiet --exclude e2e

e2e: demo-image
	@scripts/test-clients
	$(CARGO) build --quiet -p xebec -p bench
	$(CARGO) test -p e2e -- --test-threads=1
