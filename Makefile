# Everything installs itself into .venv: `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1
export PYTHONHASHSEED := 0

.PHONY: demo test test-eval fuzz soak azurite lint format cover bench bench-apply bench-codec bench-publish family pictures reproduction clean

# torch comes first and alone: asked for later, a range could pull a CUDA build of gigabytes
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## publish, query, apply, restore and verify on the trained family
	$(BIN)/python examples/demo.py

test: $(VENV)/.installed  ## all tests but the long soaks
	$(BIN)/python -m pytest -n 2 -m "not slow"

# the server for az://: 190 MB of JavaScript, so not in dev; 3.35.0 is the last that Node 20 runs
AZURITE := 3.35.0
.azurite/$(AZURITE).installed:
	npm install --prefix .azurite --no-save --no-package-lock --no-audit --no-fund --ignore-scripts \
	  --loglevel=error azurite@$(AZURITE)
	touch $@

azurite: .azurite/$(AZURITE).installed  ## Azurite into .azurite, for the slow tests of az://

soak: $(VENV)/.installed .azurite/$(AZURITE).installed  ## the long ones (needs Node 20 or later)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[soak]'
	$(BIN)/python -m pytest -n 2 -m slow

# each parser for FUZZ_SECONDS, two at a time; what is found lies in tests/fuzz/found
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := header index manifest release frame recipe model adapter
fuzz: $(VENV)/.installed  ## mutate what the parsers of strangers' bytes read
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	printf '%s\n' $(FUZZ_TARGETS) | NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(CURDIR)/.fuzz-cache \
	  xargs -P 2 -I TARGET $(BIN)/python tests/fuzz/fuzz.py TARGET --seconds $(FUZZ_SECONDS)

test-eval: $(VENV)/.installed  ## the tests against lm-evaluation-harness, which dev has not
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[eval]'
	HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 $(BIN)/python -m pytest tests/eval

cover: $(VENV)/.installed  ## branch coverage of the packages
	$(BIN)/coverage erase
	COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml $(BIN)/coverage run -m pytest -m "not slow"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include 'paramdelta/*,registry/stores/*,registry/artifacts.py' --fail-under 95

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed  ## memory and speed of publish, apply and restore
	$(BIN)/python benchmarks/bench_memory.py

# the peers live in a venv of their own: they bring other versions of what the product uses
.venv-peers/.installed: $(VENV)/.installed benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet torch==2.13.0
	.venv-peers/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	.venv-peers/bin/python -m pip install --quiet --requirement benchmarks/requirements.txt
	touch $@

bench-apply: .venv-peers/.installed  ## apply and restore against mergekit, a script by hand and cp
	$(BIN)/python benchmarks/bench_apply.py --peers .venv-peers/bin --gb $(or $(BENCH_GB),1)

bench-codec: .venv-peers/.installed  ## bits a weight and speed against zipnn and lmzip
	.venv-peers/bin/python benchmarks/bench_codec.py

bench-publish: .venv-peers/.installed  ## speed and size of a publish against cp, peers and a script
	.venv-peers/bin/python benchmarks/bench_publish.py

family: $(VENV)/.installed  ## train the example family again (minutes)
	$(BIN)/python examples/family/train.py

pictures: $(VENV)/.installed  ## draw the pictures of docs/analysis.md again (half a minute)
	$(BIN)/python examples/pictures.py

reproduction: $(VENV)/.installed  ## the paper on small models, three seeds: writes docs/reproduction.md
	$(BIN)/python -m examples.reproduction

clean:
	rm -rf $(VENV) .azurite .fuzz-cache tests/fuzz/found .venv-peers demo-out bench-out reproduction-out build *.egg-info .mypy_cache .pytest_cache .ruff_cache
