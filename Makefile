# Two commands do everything on a fresh machine: `make demo` and `make test`. They share one virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Idle OpenMP threads spin for 16 ms by default, on cores that the Rust core's threads wait for; half a millisecond is
# enough between two operations of PyTorch.
export GOMP_SPINCOUNT ?= 10000

.PHONY: demo demo-ns test check sanitize fuzz bench clean

demo: $(STAMP)  ## simulate, train, influence, report; then open runs/demo/report/report.html
	$(BIN)/pdeinfl demo

demo-ns: $(STAMP)  ## the same on Navier-Stokes
	$(BIN)/pdeinfl demo --equation NS

test: $(STAMP)  ## Rust and Python tests
	cargo test --workspace --exclude pdeinfl-py --locked --quiet
	$(BIN)/python -m pytest

check: $(STAMP) test  ## formatting, lints, types, room contracts, tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
	$(BIN)/ruff format --check python
	$(BIN)/ruff check python tests benches
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest pdeinfl._core
	$(BIN)/lint-imports

# Sanitizers and fuzzing need a nightly compiler, the thread sanitizer also its sources (component rust-src).
NIGHTLY_TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
HAS_NIGHTLY := cargo +nightly --version >/dev/null 2>&1
HAS_SOURCES := test -d "$$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library"

sanitize:  ## the core's tests under the address sanitizer and the thread sanitizer
	@if ! $(HAS_NIGHTLY); then echo "make sanitize: skipped: no nightly compiler (rustup toolchain install nightly)"; else \
	  set -e; \
	  RUSTFLAGS="-Zsanitizer=address" cargo +nightly test -p pdeinfl-core --locked --lib --tests \
	    --target $(NIGHTLY_TARGET) --target-dir target/address; \
	  if $(HAS_SOURCES); then \
	    RUSTFLAGS="-Zsanitizer=thread" cargo +nightly test -p pdeinfl-core --locked --lib --tests -Zbuild-std \
	      --target $(NIGHTLY_TARGET) --target-dir target/thread; \
	  else echo "make sanitize: thread sanitizer skipped (rustup component add rust-src --toolchain nightly)"; fi; fi

fuzz:  ## a minute of fuzzing of matrices in files
	@if ! $(HAS_NIGHTLY); then echo "make fuzz: skipped: no nightly compiler (rustup toolchain install nightly)"; \
	elif ! cargo fuzz --version >/dev/null 2>&1; then echo "make fuzz: skipped: no cargo-fuzz (cargo install cargo-fuzz)"; \
	else cargo +nightly fuzz run file_matrix -- -max_total_time=60; fi

bench: $(STAMP)  ## every benchmark at full size; see docs/benchmarks.md
	cargo bench --locked
	for bench in benches/bench_*.py; do $(BIN)/python $$bench || exit 1; done

# The extension is rebuilt when the Rust sources change; Python sources are used in place.
$(STAMP): pyproject.toml constraints.txt Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name Cargo.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@command -v cargo >/dev/null || { echo "no cargo: the Rust core needs a toolchain, see https://rustup.rs"; exit 1; }
	@echo "installing into $(VENV): some minutes, about 5 GB"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) target python/pdeinfl/_core*.so
