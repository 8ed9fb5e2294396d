# make quick: from nothing to a leaderboard.   make test: from nothing to a test result.   make bench: how fast it is.
# make docs: the documentation, in site/.
PYTHON ?= python3
VENV   ?= .venv

.PHONY: quick test unit lint bench docs
quick: $(VENV)/.installed
	$(VENV)/bin/reid-attack-bench run quick

test: $(VENV)/.installed-test
	$(VENV)/bin/pytest

unit: $(VENV)/.installed-test
	$(VENV)/bin/pytest -m unit

bench: $(VENV)/.installed-bench
	$(VENV)/bin/python -m benchmarks --out results/benchmarks

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --editable '.[bench]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/.installed
