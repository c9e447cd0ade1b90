# The commands of this project; what they do stands in tools/. Every one installs what it needs first.
.PHONY: help demo test build asan bench install clean

help:
	@echo "make demo                  set up, build and draw a picture"
	@echo "make test                  set up, build and run every test (FUZZ_SECONDS=2 for each fuzz target)"
	@echo "make build                 only build build/release/calotype"
	@echo "make asan                  the tests under address and undefined-behaviour sanitizers"
	@echo "make bench                 the benchmarks"
	@echo "make install PREFIX=…      a folder that runs from anywhere: bin/, lib/calotype/, share/calotype/"
	@echo "make clean                 remove build/; LibTorch stays in third_party/"
	@echo "TORCH_DIR=…                use this LibTorch instead of fetching one; remembered until make clean"

demo: build
	@tools/demo

build:
	@tools/setup build
	@tools/build release calotype

test:
	@tools/setup test
	@tools/build release
	@tools/test release
	@tools/build fuzz
	@tests/fuzz/run.sh $${FUZZ_SECONDS:-2}

asan:
	@tools/setup test
	@tools/build asan
	@tools/test asan

bench:
	@tools/setup bench
	@tools/build bench bench/all
	@set -e; for program in build/bench/bench/*_bench; do $$program; done

install:
	@if [ -z "$(PREFIX)" ]; then echo "error: say where: make install PREFIX=/opt/calotype" >&2; exit 2; fi
	@$(MAKE) --no-print-directory build
	@cmake --install build/release --prefix "$$(realpath -m "$(PREFIX)")" >build/install.log || \
		{ cat build/install.log; exit 1; }
	@echo "Installed $(PREFIX)/bin/calotype"

clean:
	@rm -rf build
