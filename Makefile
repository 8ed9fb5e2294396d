# make quick: from nothing to a leaderboard.   make test: from nothing to a test result.
PYTHON ?= python3
VENV   ?= .venv

.PHONY: quick test lint
quick: $(VENV)/.installed
	$(VENV)/bin/reid-attack-bench run quick

test: $(VENV)/.installed-test
	$(VENV)/bin/pytest

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
