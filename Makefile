# Each target is one script or one cargo command: read those for how it is done.
.DEFAULT_GOAL := help
.PHONY: help dev test e2e bench soak profile images crds fmt lint clean
CLUSTER ?= local
PORT ?= 8787
ARGS ?=
RUSTDOCFLAGS ?= -D warnings
export CLUSTER RUSTDOCFLAGS

help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: ## serves the Functions in examples/ on this machine, without Kubernetes (PORT=8787)
	@tests/toolchain
	cargo run --locked -p isolet-runtime --bin isolet -- dev examples --port $(PORT)

test: ## runs the tests against the real worker and a real API server; says what could not run
	@tests/run

e2e: ## tests on a cluster of two nodes: its own, or CLUSTER=current (kubectl's), or CLUSTER=kind
	@tests/e2e/run

bench: ## measures Isolet beside workerd, Deno, Node and hyper; writes docs/benchmarks.md (ARGS=--quick: a short look)
	@tests/toolchain
	runtime/pgo/build -p isolet-runtime --bin isolet -p isolet-bench --bin isolet-bench
	target/release/isolet-bench run $(ARGS)

soak: ## has hundreds of tenants answer under mixed load for ten minutes and checks every answer (ARGS=--quick: one minute)
	@tests/toolchain
	runtime/pgo/build -p isolet-runtime --bin isolet -p isolet-bench --bin isolet-bench
	target/release/isolet-bench soak $(ARGS)

profile: ## records what release builds are optimised with; before a release
	@runtime/pgo/record

images: ## makes target/images/operator.tar and runtime.tar (TAG=dev, BASE=image)
	@images/build

crds: ## writes crds/*.yaml and the chart's copy from the Rust types
	@tests/toolchain
	cargo run --locked -q -p isolet-crds --example generate

fmt: ## formats the code
	cargo fmt --all

lint: ## checks formatting, clippy, documentation, chart and shell scripts
	@tests/lint

clean: ## removes target/ and stops a test cluster that was left
	@tests/cluster/cluster down
	cargo clean
