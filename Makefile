# Two commands for everybody: make demo, make test. Each makes its own virtual
# environment and needs Python >= 3.10 and make, nothing else.

PYTHON ?= python3
VENV = .venv
DEMO = .venv-demo
OLDEST = .venv-oldest
OLDEST_CELERY = celery==5.4.0 kombu==5.4.2 billiard==4.2.1
WORKERS ?= auto
PYTEST = -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help demo test test-oldest lint format bench clean

help:
	@echo "make demo         watch a guarded task survive duplicates, redelivery and a killed worker"
	@echo "make test         run all tests"
	@echo "make test-oldest  run the tests that depend on Celery's version against the oldest one"
	@echo "make lint         ruff, mypy, pyright, import-linter"
	@echo "make bench        measure what guarding costs, as ratios"

define make_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "onceguard needs Python 3.10 or newer; say which: make PYTHON=python3.12 $@" >&2; exit 1; }
	@$(PYTHON) -m venv $(1) || \
		{ echo "$(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }
	@$(1)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
endef

$(DEMO)/ready: pyproject.toml
	$(call make_venv,$(DEMO))
	@$(DEMO)/bin/python -m pip install --quiet --editable ".[demo]"
	@touch $@

$(VENV)/ready: pyproject.toml
	$(call make_venv,$(VENV))
	@$(VENV)/bin/python -m pip install --quiet --editable ".[hiredis,demo]" --group test --group lint
	@touch $@

$(OLDEST)/ready: pyproject.toml
	$(call make_venv,$(OLDEST))
	@$(OLDEST)/bin/python -m pip install --quiet --editable ".[demo]" --group test $(OLDEST_CELERY)
	@touch $@

demo: $(DEMO)/ready
	@$(DEMO)/bin/python -m onceguard.admin.demo

test: $(VENV)/ready
	@$(VENV)/bin/python $(PYTEST)

test-oldest: $(OLDEST)/ready
	@$(OLDEST)/bin/python $(PYTEST) -m oldest

lint: $(VENV)/ready
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python
	@$(VENV)/bin/lint-imports

format: $(VENV)/ready
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

bench: $(VENV)/ready
	@$(VENV)/bin/python -m tests.benchmark

clean:
	rm -rf $(VENV) $(DEMO) $(OLDEST)
