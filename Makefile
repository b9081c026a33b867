# make demo      degraded photos, restored by the weights that ship: a table and a contact sheet
# make test      lint, types, and the tests that show in a few minutes that the product works on this machine
# make test-all  make test, and after it the slow tests: clusters, kills, sweeps, a browser, fuzzing
# make chaos     workers, nodes and drivers of training runs and restores killed at random, ten times over, commands
#                stopped at many moments, and training runs whose checkpoints, tracker, disk or lock are damaged
# make fuzz      five thousand malformed requests to an endpoint, whose processes must outlive them and not grow
# make install   the environment that all of them need, in .venv; they make it too where it is missing
# make test TESTS="tests/core -k golden" runs lint, types and these of the fast tests; make test-slow TESTS=... these
# of the slow ones

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed
PARALLEL := --numprocesses 2 --dist loadfile

.PHONY: install demo test test-slow test-all chaos fuzz lint clean

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/diffuir demo --out demo

test: lint
	$(BIN)/pytest $(PARALLEL) -m "not slow" --durations 20 $(TESTS)

# One after the other: they kill processes at set moments, depend on timing, and measure.
test-slow: $(INSTALLED)
	$(BIN)/pytest -m slow --durations 20 $(TESTS)

test-all: test
	$(MAKE) test-slow

# DIFFUIR_STORE=ceph takes Ceph's gateway (apt-get install radosgw ceph-mon ceph-osd) instead of moto.
chaos: $(INSTALLED)
	DIFFUIR_CHAOS=10 $(BIN)/pytest tests/platform/train/test_train_on_a_cluster.py -k "killed or grows"
	DIFFUIR_CHAOS=10 $(BIN)/pytest tests/platform/train/test_train_drills.py
	DIFFUIR_CHAOS=10 $(BIN)/pytest tests/platform/train/test_train_stops.py -k number
	DIFFUIR_CHAOS=10 $(BIN)/pytest tests/platform/restore/test_restore_on_a_cluster.py -k kills
	DIFFUIR_CHAOS=10 $(BIN)/pytest tests/platform/test_stopping.py -k moments

fuzz: $(INSTALLED)
	DIFFUIR_FUZZ=5000 $(BIN)/pytest -s tests/platform/serve/test_serve_fuzz.py

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
