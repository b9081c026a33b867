# make demo    degraded photos, restored by the weights that ship: a table and a contact sheet
# make test    lint, types and tests
# make chaos   workers, nodes and drivers of training runs and restores killed at random, ten times over
# make fuzz    five thousand malformed requests to an endpoint, whose processes must outlive them and not grow
# All make .venv first where it is missing.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test chaos fuzz lint clean

demo: $(INSTALLED)
	$(BIN)/diffuir demo --out demo

test: lint
	$(BIN)/pytest

# DIFFUIR_STORE=ceph takes Ceph's gateway (apt-get install radosgw ceph-mon ceph-osd) instead of moto.
chaos: $(INSTALLED)
	DIFFUIR_CHAOS=10 $(BIN)/pytest tests/platform/test_train_on_a_cluster.py -k killed
	DIFFUIR_CHAOS=10 $(BIN)/pytest tests/platform/test_restore_on_a_cluster.py -k kills

fuzz: $(INSTALLED)
	DIFFUIR_FUZZ=5000 $(BIN)/pytest -s tests/platform/test_serve_fuzz.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo runs
