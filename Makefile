.DEFAULT_GOAL := help

# Where cargo puts what it builds.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# The static binary, as `make dist` calls it.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
STATIC := $(TARGET)/dist/trunkline-$(VERSION)-x86_64-linux/trunkline

# How many tests run at once.
TEST_THREADS ?= $(shell expr 6 \* $$(getconf _NPROCESSORS_ONLN))

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## the release binary
	cargo build --release --locked

.PHONY: run
run: ## the gateway with ./config.json
	cargo run --release --locked -- serve --config config.json

.PHONY: check
check: fmt lint test doc deny ## everything CI runs before interop, in CI's order

.PHONY: fmt
fmt: ## is the code formatted?
	cargo fmt --all --check

.PHONY: lint
lint: ## clippy without a warning
	cargo clippy --locked --all-targets -- -D warnings

.PHONY: quick
quick: ## unit tests and the rules of the architecture, for after each edit
	cargo test --locked -p trunkline -p trunkline-architecture --lib --test architecture

.PHONY: test
# Tests wait more than they work, so that more of them run at once than there are cores. The feature comes first: what
# it builds is not what the other tests start.
test: export RUST_TEST_THREADS ?= $(TEST_THREADS)
test: ## all tests that need only the Rust toolchain
	cargo test --locked -p trunkline --features tiny_http --test tiny_http
	cargo test --locked

.PHONY: doc
doc: ## the documentation, its links checked
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

.PHONY: deny
deny: ## licences, duplicates, sources and advisories of the dependencies
	.ci/deny

.PHONY: dist
dist: ## the static release binaries, stripped: path, size, SHA-256
	contrib/dist.sh $(TARGET)

.PHONY: deb
deb: dist ## a Debian package of the static binary
	contrib/deb/build.sh $(STATIC) $(TARGET)/dist

.PHONY: packages
packages: deb ## an npm and a PyPI package of it, installed and run
	contrib/packages.sh $(STATIC) $(TARGET)/dist
	tests/interop/packages.sh $(TARGET)/dist

.PHONY: bench
bench: build ## tools/call direct, through nginx and through the gateway; and what it costs to know who calls
	cargo build --release --locked --example fast_upstream
	tests/bench/run.sh $(TARGET)/release/trunkline $(TARGET)/release/examples/fast_upstream
	tests/bench/tokens.sh $(TARGET)/release/trunkline $(TARGET)/release/examples/fast_upstream

.PHONY: bench-hung
bench-hung: build ## what one hung server of ten costs calls to the other nine
	cargo build --release --locked --example fast_upstream
	tests/bench/hung.sh $(TARGET)/release/trunkline $(TARGET)/release/examples/fast_upstream

.PHONY: bench-memory
bench-memory: build ## what bursts of large answers cost in memory, and what of it stays
	tests/bench/memory.py $(TARGET)/release/trunkline

.PHONY: soak
SECONDS ?= 1800
soak: build ## clients and servers of every kind, well and badly behaved, for SECONDS (1800)
	cargo build --release --locked --example fast_upstream
	tests/soak/run.py $(TARGET)/release/trunkline $(TARGET)/release/examples/fast_upstream --seconds $(SECONDS)

.PHONY: interop
interop: build ## the conformance suite and stock clients against the gateway
	tests/interop/run.py $(TARGET)/release/trunkline

.PHONY: clean
clean: ## remove what was built
	cargo clean
