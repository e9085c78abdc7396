# Every target makes the .venv that it needs. Only python3 (3.11 to 3.13) with its venv module, make and the package
# index are assumed. Another interpreter: make PYTHON=python3.12 test. Arguments for the command: ARGS="...".

PYTHON ?= python3
ARGS ?=
N ?= 1000

# The install leaves compiling to the first import; where that may not be kept, each of the many processes that the demo
# and the tests start compiles everything again, for seconds.
unexport PYTHONDONTWRITEBYTECODE

SHELL := /bin/sh
.DELETE_ON_ERROR:
.NOTPARALLEL:

BIN := .venv/bin
# Byte code is left to the first import: compiling all of it took a third of the install.
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet --no-compile
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.PHONY: help demo test check format fuzz powercut faults sim bench wheel lock clean

help:
	@echo 'make demo    gateway and trucks over emulated links; ARGS="--seconds 60" ends by itself'
	@echo 'make test    the tests, three at a time; ARGS="tests/protocol -x -n 0" for some of them, one by one'
	@echo 'make check   formatting, lint, types, import contracts'
	@echo 'make format  rewrite the sources as `make check` wants them'
	@echo 'make fuzz    hostile input for every parser and server; ARGS="--seconds 600 --seed 1"'
	@echo 'make powercut  N=1000 real power cuts (root, loop devices); ARGS="--seed 1" repeats a run'
	@echo 'make faults    every write, fsync, rename, open and unlink fails or kills once (strace)'
	@echo 'make sim     a simulated fleet in bad weather, its promises checked; SEED=1 TRUCKS=50 DAYS=30'
	@echo 'make bench   the published figures, measured here'
	@echo 'make wheel   dist/*.whl, what a truck or a gateway installs beside requirements/*.lock'
	@echo 'make lock    fit requirements/*.lock to pyproject.toml; ARGS=--upgrade takes newer versions'
	@echo 'make clean   remove .venv and caches'

demo: .venv/demo.stamp
	$(BIN)/digitruck-gateway demo $(ARGS)

test: .venv/dev.stamp
	$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

check: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports --no-logo

format: .venv/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: .venv/dev.stamp
	$(BIN)/python -m tests.fuzz $(ARGS)

powercut: .venv/dev.stamp
	$(BIN)/python -m tests.powercut --cuts $(N) $(ARGS)

faults: .venv/dev.stamp
	$(BIN)/python -m tests.faults $(ARGS)

SEED ?= 1
TRUCKS ?= 50
DAYS ?= 30

# The hash seed: sets of texts have the same order in every run.
sim: .venv/dev.stamp
	PYTHONHASHSEED=0 $(BIN)/python -m tests.sim --seed $(SEED) --trucks $(TRUCKS) --days $(DAYS) $(ARGS)

bench: .venv/bench.stamp
	$(BIN)/python -m tests.bench $(ARGS)

wheel: .venv/gateway.stamp
	$(BIN)/python -m hatchling build -t wheel -t sdist

# An interpreter that does not fit is named before anything is written.
.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo 'No $(PYTHON) here. On Debian: apt-get install python3 python3-venv' >&2; exit 2; }
	@$(PYTHON) -c '$(SUPPORTED)' || { \
	  echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); 3.11, 3.12 or 3.13 is needed. Name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'The venv module of $(PYTHON) is missing. On Debian: apt-get install python3-venv' >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv

# gateway.lock is within demo.lock, that within dev.lock, and that within bench.lock, at the same versions: the larger
# install serves the smaller target. The project itself is installed from the checkout, built with the hatchling that
# the lock holds.
.venv/%.stamp: requirements/%.lock pyproject.toml | .venv/bin/python
	@$(BIN)/python -c '$(SUPPORTED)' || { \
	  echo '.venv is of an interpreter that does not fit: make clean, then again' >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	$(PIP_INSTALL) --require-hashes --only-binary :all: -r $<
	$(PIP_INSTALL) --no-deps --no-build-isolation --no-index --editable .
	@touch $(foreach part,$(PARTS_$*),.venv/$(part).stamp)

PARTS_gateway := gateway
PARTS_demo := gateway demo
PARTS_dev := gateway demo dev
PARTS_bench := gateway demo dev bench

# One universal resolution for Python 3.11 to 3.13, x86-64 and aarch64, all hashes; uv comes from the index into a
# venv of its own. The largest lock is made first and constrains the others, so that they agree.
UV := .venv-lock/bin/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --custom-compile-command 'make lock' --no-config

lock:
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/python -m pip --disable-pip-version-check --no-input install --quiet uv
	$(COMPILE) $(ARGS) pyproject.toml --all-extras --group bench -o requirements/bench.lock
	$(COMPILE) pyproject.toml --all-extras --group dev -c requirements/bench.lock -o requirements/dev.lock
	$(COMPILE) pyproject.toml --extra gateway --extra postgres --group demo -c requirements/bench.lock \
	  -o requirements/demo.lock
	$(COMPILE) pyproject.toml --extra gateway --extra postgres --group build -c requirements/bench.lock \
	  -o requirements/gateway.lock
	$(COMPILE) pyproject.toml --extra devices -c requirements/bench.lock -o requirements/edge.lock
	$(COMPILE) pyproject.toml --extra devices --extra modem --extra snmp --extra starlink --extra workstations \
	  -c requirements/bench.lock -o requirements/instruments.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
