# Words for people and for CI. On a fresh clone every one of them works by itself: setup comes first.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CLANG ?= clang
SECONDS := 600
FUZZED := tests/codecs/exact/fuzz/kernel_fuzz.c
SANITIZED := -fno-sanitize-recover=undefined -fsanitize=address,undefined

.DEFAULT_GOAL := help
.PHONY: help recording demo setup test test-slow fuzz fuzz-kernel torture test-real check fix bench figures docs clean

help: ## List these words
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(READY) ## See weightsmith at work, from a tiny model to its text, in under a minute
	$(BIN)/python -m tests.demo.demo

setup: $(READY) ## Make .venv with everything that development needs

# The stamp lies inside .venv, so that removing .venv starts afresh.
$(READY): pyproject.toml .ci/constraints.txt $(wildcard weightsmith/codecs/*.c weightsmith/codecs/*/*.c)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "weightsmith needs Python 3.11 or newer, $(PYTHON) is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[dev]'
	touch $@

# Containers often forbid bytecode: then each process of the tests would compile everything anew.
test test-slow test-real: export PYTHONDONTWRITEBYTECODE =

test: $(READY) ## Run the tests, in a minute or two on two cores
	$(BIN)/python -m pytest -n auto --dist worksteal -m 'not slow and not real'

test-slow: $(READY) ## Run the tests that take longer, and all examples of those of any values
	$(BIN)/python -m pytest -n auto --dist loadfile -m '(slow or hypothesis) and not real'

test-real: $(READY) ## Run the tests with real tokenizers, which packages carry
	$(BIN)/python -m pytest -m real

fuzz: $(READY) ## Feed all readers with what no writer makes, ten minutes each; TARGET=t, SECONDS=n
	$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet -c .ci/constraints.txt atheris || true
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(if $(TARGET),--target $(TARGET)) $(if $(SEED),--seed $(SEED))

fuzz-kernel: ## Feed the compiled part with what no writer makes, for ten minutes; needs clang
	mkdir -p build/fuzz/spans
	$(CC) -O1 -g $(SANITIZED) $(FUZZED) -o build/fuzz/seeds
	build/fuzz/seeds --runs 300 7 build/fuzz/spans
	$(CLANG) -O1 -g -DWITH_LIBFUZZER $(SANITIZED),fuzzer $(FUZZED) -o build/fuzz/kernel
	cd build/fuzz && ./kernel -max_total_time=$(SECONDS) -max_len=12000 -print_final_stats=1 spans

torture: $(READY) ## Kill, starve and cut the power of every command; LONG=1: for hours; SEED=n, CASE=c
	$(BIN)/python -m tests.torture $(if $(LONG),--long) $(if $(SEED),--seed $(SEED)) $(if $(CASE),--case '$(CASE)') $(TORTURE)

check: $(READY) ## Format, lint, types, generated pages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

fix: $(READY) ## Format, and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## Time and memory beside a plain copy; PEERS=1: other tools too; ONLY=section
	$(BIN)/python -m tests.bench.bench $(if $(PEERS),--peers) $(if $(ONLY),--only $(ONLY)) $(BENCH)

# Sections of the benchmark that README and docs/explanation/performance.md tell of (docs/figures.py).
SHOWN := copy fastchat mergekit xor merge-lora experts fp8 convert zero combine exact thirty

figures: $(READY) ## Measure anew what README and docs say of time and memory, on an idle machine
	$(BIN)/python -m tests.bench.bench --only $(SHOWN) --full third --rounds 3 --peer-rounds 3 --json docs/pictures/benchmark.json
	$(BIN)/python docs/generate.py

docs: $(READY) ## Write the generated pages anew, and the site of all pages into build/site
	$(BIN)/python docs/generate.py
	$(BIN)/python -m tests.support.bad_input.page
	$(BIN)/python -m tests.support.training_page
	$(BIN)/python -m tests.support.merge_matrix
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d build/doctrees docs build/site
	@echo 'the site: build/site/index.html'

recording: $(READY) ## Run the commands at the top of the README and draw what they say; its heat map, too
	$(BIN)/python -m tests.demo.recording
	$(BIN)/python -m tests.demo.heat_map

clean: ## Remove what was built, .venv too
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
