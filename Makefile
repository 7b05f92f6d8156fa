# Two commands do all the set-up on a fresh machine:
#   make demo    the whole experiment, small, with its table
#   make test    lint, types and tests
# Each makes .venv if it is not there, installs by constraints.txt and runs. Another Python: make demo PYTHON=python3.12
# Without a GPU on Linux, the CPU build of torch saves gigabytes:
#   make demo PIP_INSTALL_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL_ARGS ?=
# Tests side by side; each takes about a gigabyte.
JOBS ?= 2
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_INSTALL_ARGS)
INPUTS := pyproject.toml constraints.txt

.PHONY: demo test schema docs clean python

demo: python $(VENV)/.installed-demo
	$(BIN)/ragcun demo

test: python $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@# One thread each, as many as run side by side; tests/conftest.py says which share a process, and which run alone.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not alone" --numprocesses $(JOBS) --dist loadgroup
	$(BIN)/python -m pytest -m alone tests/faults

# What editors and the tests compare recipes with.
schema: $(VENV)/.installed-dev
	$(BIN)/ragcun recipe schema > recipes/schema.json

# The reference of recipes, from the same schema.
docs: $(VENV)/.installed-dev
	$(BIN)/ragcun recipe schema --format markdown > docs/recipes.md

# PYTHON only counts while .venv is made; say so rather than go on with another one.
python: $(VENV)/.python
	@test "$(origin PYTHON)" = file || test "$$($(PYTHON) -V)" = "$$($(BIN)/python -V)" || \
		{ echo "$(VENV) has $$($(BIN)/python -V). For $(PYTHON): make clean, then again" >&2; exit 1; }

clean:
	rm -rf $(VENV)

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here. Try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "ragcun is tested with Python 3.10 to 3.13; this is $$($(PYTHON) -V). Try: make PYTHON=python3.12" >&2; exit 1; }
	@# Debian's python3 may lack ensurepip; then the pip that is there fills the new environment.
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { $(PYTHON) -m venv --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } || \
		{ echo "$(PYTHON) has neither ensurepip nor pip. On Debian: apt install python3-venv" >&2; exit 1; }
	@touch $@

# torch comes first and by its exact pin: a looser wish of another package would fetch another build.
$(VENV)/.installed-%: $(VENV)/.python $(INPUTS)
	@echo "Installing ragcun and what it needs into $(VENV) (a few minutes, once) ..."
	@$(INSTALL) "$$(grep '^torch==' constraints.txt)"
	@$(INSTALL) --editable '.[$*]'
	@touch $@
