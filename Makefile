# Every target makes its own virtual environment where none is active: `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
ifdef VIRTUAL_ENV
VENV := $(VIRTUAL_ENV)
else
VENV := .venv
endif
BIN := $(VENV)/bin
READY := $(VENV)/.covis-ready
JOBS ?= auto

.PHONY: demo test test-all check format bench evidence kills docs-tables clean

demo: $(READY)  ## towns are built, photographed, labelled, learned, whitened and scored: a table and a picture, in demo/
	$(BIN)/covis demo --out demo

test: check  ## lint, types, import rules, tests, and the wheel installed and run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "not slow and not gpu"

test-all: check  ## the tests that take longer too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "not gpu"

check: $(READY)  ## format, lint, types, layers
	$(BIN)/ruff format --check src tests benchmarks evidence examples
	$(BIN)/ruff check src tests benchmarks evidence examples
	$(BIN)/mypy
	$(BIN)/lint-imports --config pyproject.toml

format: $(READY)
	$(BIN)/ruff check --fix src tests benchmarks evidence examples
	$(BIN)/ruff format src tests benchmarks evidence examples

bench: $(READY)  ## speed; DATA=/path/to/redkitchen, PITTS=/path/to/pitts30k_test.npz
	$(BIN)/python benchmarks/startup.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/tables.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/town.py
	$(BIN)/python benchmarks/whitening.py
	$(BIN)/python benchmarks/engines.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/extraction_memory.py
	$(BIN)/python benchmarks/search.py --count 100000
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/partition.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/distillation.py
	$(BIN)/python benchmarks/training.py --images $(or $(DATA),$(COVIS_DATA)/7scenes/redkitchen)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/view_labels.py --data $(or $(PITTS),$(COVIS_DATA)/metadata/pitts30k/pitts30k_test.npz)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/surface_labels.py --data $(or $(DATA),$(COVIS_DATA)/7scenes/redkitchen)

evidence: $(READY)  ## the claims, re-run: what has no record yet, then docs/evidence.md; QUICK=1: minutes; TABLE=1: the page alone; ONLY=graded
	$(BIN)/python -m evidence $(if $(QUICK),--quick --out $(or $(OUT),evidence/quick)) $(if $(TABLE),--table) $(foreach study,$(ONLY),--only $(study))

kills: $(READY)  ## kill -9 at random moments of extract, label, train and index --add: each must end as if it had not been
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/kills.py --moments 13

docs-tables: $(READY)  ## the tables in the docs that covis itself prints
	$(BIN)/python benchmarks/docs_tables.py

clean:
	rm -rf build dist demo .mypy_cache .ruff_cache .import_linter_cache .hypothesis .pytest_cache

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $(READY)
