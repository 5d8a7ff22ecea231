# The one definition of what is built, checked and tested; .ci/run calls it too.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUST_AT_LEAST := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
# Each layer is a feature of Cargo.toml; `check` builds each of them alone.
LAYERS := $(shell sed -n '/^\[features\]/,/^\[\[/s/^\([a-z][a-z-]*\) = .*/\1/p' Cargo.toml | grep -v '^default$$')
SOURCES := Cargo.toml Cargo.lock build.rs pyproject.toml README.md LICENSE \
	$(shell find src python -type f -not -name '*.pyc' -not -name '*.so')

# rustup's programs, where a shell was not told of them
export PATH := $(PATH):$(HOME)/.cargo/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.DELETE_ON_ERROR:
.PHONY: help demo test test-rust test-python test-asyncio test-trio check check-rust check-python bench fuzz build clean prerequisites

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed ## run evals in local sandboxes: no account, no network
	@$(BIN)/python examples/demo.py

test: test-rust test-python ## run all tests

test-rust: | prerequisites ## run the Rust tests
	cargo test --features shim,runner

# Inspect keeps locks of one event loop per process, so each backend has a run of its own.
test-python: test-asyncio test-trio ## run the Python tests, on asyncio and on trio

test-asyncio test-trio: test-%: $(VENV)/installed $(VENV)/developed
	INSPECT_ASYNC_BACKEND=$* $(BIN)/python -m pytest

check: check-rust check-python ## check format, lints, layers, types and documentation

check-rust: | prerequisites
	cargo fmt --check
	cargo clippy --all-targets --all-features -- --deny warnings
	@for layer in $(LAYERS); do \
		echo "cargo clippy --no-default-features --features $$layer -- --deny warnings"; \
		cargo clippy --quiet --no-default-features --features $$layer -- --deny warnings || exit 1; \
	done
	RUSTDOCFLAGS='--deny warnings' cargo doc --quiet --no-deps --all-features

check-python: $(VENV)/installed $(VENV)/developed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy python/inspect_daytona examples tests/python
	$(BIN)/python -m mypy.stubtest inspect_daytona._core
	$(BIN)/python -m pytest --quiet tests/python/test_docs.py

bench: $(VENV)/installed $(VENV)/developed ## measure; docs/benchmarks.md explains the figures
	cargo bench --no-default-features --features config --bench config
	PYTHON=$(abspath $(BIN)/python) cargo bench --bench daytona

FUZZ_SECONDS ?= 10

# The fixtures are where it starts from; what it finds is kept in fuzz/corpus, crashes in fuzz/artifacts.
fuzz: | prerequisites ## feed every parser inputs that nobody would write, FUZZ_SECONDS each
	@cargo +nightly fuzz --version >/dev/null || { \
		echo "missing: cargo-fuzz on a nightly toolchain"; \
		echo "  install: rustup toolchain install nightly && cargo install cargo-fuzz"; exit 1; }
	@for target in $$(cargo +nightly fuzz list); do \
		mkdir -p fuzz/corpus/$$target && \
		cargo +nightly fuzz run $$target fuzz/corpus/$$target tests/fixtures/config -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -max_len=4096 -verbosity=0 -print_final_stats=1 || exit 1; \
	done

build: $(VENV)/made ## build a wheel into dist/
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean: ## remove everything that was built
	rm -rf target dist logs $(VENV) .mypy_cache .pytest_cache .ruff_cache
	find python examples tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/made: | prerequisites
	$(PYTHON) -m venv $(VENV)
	@# dependency groups need a newer pip than Debian 12 has
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

# The wheel that users get: tests and benches run on nothing else.
$(VENV)/installed: $(SOURCES) $(VENV)/made
	@echo "building and installing inspect-daytona into $(VENV) (some minutes the first time)"
	$(BIN)/pip install --quiet .
	@touch $@

$(VENV)/developed: pyproject.toml $(VENV)/made
	$(BIN)/pip install --quiet --group dev
	@touch $@

prerequisites:
	@missing() { echo "missing: $$1"; echo "  install: $$2"; failed=1; }; \
	if ! command -v cargo >/dev/null; then \
		missing "cargo (Rust $(RUST_AT_LEAST) or newer)" "https://rustup.rs, or Debian 13: apt-get install rustup && rustup default stable"; \
	elif ! cargo --version | awk '{ split($$2, v, "."); split("$(RUST_AT_LEAST)", n, "."); \
			exit !(v[1] > n[1] || (v[1] == n[1] && v[2] >= n[2])) }'; then \
		missing "Rust $(RUST_AT_LEAST) or newer ($$(cargo --version) is too old)" "rustup update stable"; \
	fi; \
	if ! command -v cc >/dev/null; then \
		missing "a C compiler and linker (cc)" "apt-get install build-essential"; \
	fi; \
	if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		missing "Python 3.11 or newer ($(PYTHON))" "apt-get install python3, or make PYTHON=/path/to/python"; \
	elif ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		missing "Python's venv module" "apt-get install python3-venv"; \
	fi; \
	[ -z "$$failed" ]
