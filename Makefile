# `make demo` and `make test` need Python 3.11 or newer and make, and set up all else in .venv by themselves.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
RUN ?= runs/digits
BIN = $(VENV)/bin
# A process for each of two cores: most tests are too small for more threads.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 25
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)

.PHONY: demo test test-all lint lowest newest clean

demo: $(VENV)/.demo
	$(BIN)/sitkit train digits --out $(RUN)
	$(BIN)/sitkit sample $(RUN) --samples 100 --out $(RUN)/ode.png
	$(BIN)/sitkit sample $(RUN) --samples 100 --out $(RUN)/sde.png --set sampler.kind=sde --set sampler.steps=25
	$(BIN)/sitkit evaluate $(RUN)
	@echo "samples of every class, with guidance: $(RUN)/ode.png (by ODE) and $(RUN)/sde.png (by SDE)"

# Every law once, in a few minutes.
test: $(VENV)/.dev
	$(PYTEST) -m "not slow"

# Also the tests of several processes, of commands that are killed, and of all combinations of parameters.
test-all: test
	$(PYTEST) -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy interpolants backbones objectives samplers
	rm -rf build/lib build/wheel build/site
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/site build/wheel/*.whl
	MYPYPATH=build/site:tests $(BIN)/mypy -p sitkit.recipes
	MYPYPATH=build/site:tests:benchmarks $(BIN)/mypy tests benchmarks
	MYPYPATH=build/site $(BIN)/mypy examples

# `make test` with the oldest versions that pyproject.toml allows.
lowest:
	mkdir -p build
	$(PYTHON) .ci/lowest.py > build/lowest.txt
	$(MAKE) .venv-lowest/.eval VENV=.venv-lowest CONSTRAINTS=build/lowest.txt
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=build/lowest.txt

# All tests with the newest version of everything that is offered today.
newest:
	mkdir -p build
	: > build/newest.txt
	PIP_UPGRADE=1 PIP_UPGRADE_STRATEGY=eager $(MAKE) test-all VENV=.venv-newest CONSTRAINTS=build/newest.txt

# Installs the extra of that name, anew when what is to be installed has changed.
$(VENV)/.%: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sitkit needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[$*]'
	@touch $@

clean:
	rm -rf .venv .venv-lowest .venv-newest build runs *.egg-info
