# `make run` and `make test` are all a fresh machine needs: Python 3.11 to 3.13 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run install test coverage chaos k8s-test kind bench checkov lint clean

run: $(VENV)/run.installed  ## install what a local system needs, start it, show wafers coming in
	$(BIN)/fabwafer up

install: $(VENV)/all.installed  ## install everything, for development

test: install  ## install everything and pass the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

coverage: install  ## the tests but for the kill tests, and the lines that run in pytest's own process
	$(BIN)/coverage run -m pytest -m "not chaos" $(PYTEST_ARGS)
	$(BIN)/coverage report

chaos: install  ## the kill tests, ten rounds each
	FABWAFER_CHAOS_ROUNDS=10 $(BIN)/python -m pytest -m chaos $(PYTEST_ARGS)

k8s-test: install  ## the tests in a cluster; k8s-tests/README.md says what they need
	$(BIN)/python -m pytest k8s-tests $(PYTEST_ARGS)

kind:  ## the images, a cluster by kind, and the chart on it; needs Docker, kind and helm
	charts/on-kind

bench: install  ## the numbers in docs/benchmarks.md
	$(BIN)/python -m benchmarks.flow

checkov: build/checkov/bin/checkov  ## install checkov, whose rules the tests of the chart then check

lint: install  ## what pre-commit and CI check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"fabwafer needs Python 3.11 or newer, this is {sys.version.split()[0]}: try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[local]'
	touch $@

$(VENV)/all.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@ $(VENV)/run.installed

build/checkov/bin/checkov:
	$(PYTHON) -m venv build/checkov
	build/checkov/bin/python -m pip install --disable-pip-version-check --quiet checkov==3.3.30
