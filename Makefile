# Every target installs what it needs into a virtual environment of its own; `make clean` removes it.
#
#   make test PYTHON=python3.12
#   make test PIP_ARGS="--extra-index-url ..."    where to find CPU builds of PyTorch (CONTRIBUTING.md)

PYTHON ?= python3
PIP_ARGS ?=

VENV := .venv-make
PIPELINES_VENV := .venv-pipelines
# Touched when an installation is complete: one that was broken off is done again. The first is the
# product alone; the second, in the same environment, has what it is developed with as well.
PRODUCT := $(VENV)/product
INSTALLED := $(VENV)/installed
PIPELINES_INSTALLED := $(PIPELINES_VENV)/installed
PIPELINES := tests/pipelines
DOCS_VENV := .venv-docs
DOCS_INSTALLED := $(DOCS_VENV)/installed
CANDIDATES_VENV := .venv-candidates
CANDIDATES_INSTALLED := $(CANDIDATES_VENV)/installed

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs bench parity test-pipelines test-peers test-dependants \
	test-candidates wheel test-wheels clean

help:
	@echo "make demo            separate a clip with and without patch()"
	@echo "make test            the tests"
	@echo "make lint            ruff, mypy, pyright and the schema of the workflows"
	@echo "make docs            the documentation site, into site/; warnings are errors"
	@echo "make bench           speed against native torch, on this machine"
	@echo "make parity          equality with native torch on many calls: parity.html"
	@echo "make test-pipelines  separation programs; needs Debian's alsa-utils and cc"
	@echo "make test-peers      mlx-spectro's own tests in the Metal emulator; minutes"
	@echo "make test-dependants tests of what uses mlx-spectro; needs FFmpeg's headers"
	@echo "make test-candidates other STFTs against torch: docs/field.md is current"
	@echo "make wheel           build this package and the parity suite into dist/"
	@echo "make test-wheels     each wheel alone, installed and run"
	@echo "make clean           remove environments, caches and outputs"

$(PRODUCT): pyproject.toml parity/pyproject.toml hatch_build.py constraints.txt \
		examples/constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install $(PIP_ARGS) -c constraints.txt -c examples/constraints.txt \
		-e ./parity -e '.[plot]'
	@touch $@

# Python brings a pip that may be too old to read dependency groups.
$(INSTALLED): $(PRODUCT)
	$(VENV)/bin/python -m pip install $(PIP_ARGS) 'pip>=25.1'
	$(VENV)/bin/python -m pip install $(PIP_ARGS) -c constraints.txt -c examples/constraints.txt \
		--group dev
	@touch $@

# PyTorch comes first, with the package: the requirements would bring a release of their own.
$(PIPELINES_INSTALLED): pyproject.toml parity/pyproject.toml hatch_build.py constraints.txt \
		$(wildcard $(PIPELINES)/requirements*.txt)
	$(PYTHON) -m venv --clear $(PIPELINES_VENV)
	$(PIPELINES_VENV)/bin/python -m pip install $(PIP_ARGS) 'pip>=25.1'
	$(PIPELINES_VENV)/bin/python -m pip install $(PIP_ARGS) -c constraints.txt \
		-e ./parity -e '.[plot]' --group dev -r $(PIPELINES)/requirements.txt
	$(PIPELINES_VENV)/bin/python -m pip install $(PIP_ARGS) --no-deps \
		-r $(PIPELINES)/requirements-no-deps.txt
	@touch $@

# Neither torch nor the package is installed: the site is made of their text.
$(DOCS_INSTALLED): pyproject.toml
	$(PYTHON) -m venv --clear $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install $(PIP_ARGS) 'pip>=25.1'
	$(DOCS_VENV)/bin/python -m pip install $(PIP_ARGS) --group docs
	@touch $@

# Its theme would say in each build that MkDocs 2 is another program.
docs: $(DOCS_INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict

# What they require is told by their own files; torch-stft and torchlibrosa need librosa besides.
$(CANDIDATES_INSTALLED): pyproject.toml parity/pyproject.toml constraints.txt \
		tests/candidates/requirements.txt
	$(PYTHON) -m venv --clear $(CANDIDATES_VENV)
	$(CANDIDATES_VENV)/bin/python -m pip install $(PIP_ARGS) 'pip>=25.1'
	$(CANDIDATES_VENV)/bin/python -m pip install $(PIP_ARGS) -c constraints.txt \
		-e ./parity -e '.[plot]' --group dev
	$(CANDIDATES_VENV)/bin/python -m pip install $(PIP_ARGS) --pre -c constraints.txt \
		-r tests/candidates/requirements.txt
	@touch $@

demo: $(PRODUCT)
	$(VENV)/bin/torch-mlx-spectro demo

# A process for each core; tests that build environments or compile are spread by stealing.
test: $(INSTALLED)
	$(VENV)/bin/python -m pytest -n auto --dist worksteal

lint: $(INSTALLED)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

bench: $(INSTALLED)
	$(VENV)/bin/torch-mlx-spectro bench --table all

parity: $(INSTALLED)
	$(VENV)/bin/torch-mlx-spectro parity --cases all --processes 2 --html parity.html
	$(VENV)/bin/python -m pytest tests/test_functional.py --hypothesis-profile=full

test-pipelines: $(PIPELINES_INSTALLED)
	$(PIPELINES_VENV)/bin/python -m pytest $(PIPELINES)

# Its source distribution is downloaded by pip, unpacked in a temporary folder, and not installed.
test-peers: $(INSTALLED)
	$(VENV)/bin/python tests/peers/run_peers.py

# Its environment is a temporary one, without torch.
test-dependants:
	PIP_ARGS="$(PIP_ARGS)" $(PYTHON) tests/dependants/run.py

test-candidates: $(CANDIDATES_INSTALLED)
	$(CANDIDATES_VENV)/bin/python -W ignore examples/parity/field.py --check
	$(CANDIDATES_VENV)/bin/python -m pytest tests/candidates

wheel: $(INSTALLED)
	$(VENV)/bin/hatchling build
	cd parity && ../$(VENV)/bin/hatchling build -d ../dist

test-wheels: wheel
	PIP_ARGS="$(PIP_ARGS)" $(PYTHON) tests/wheels/run.py dist

clean:
	rm -rf $(VENV) $(PIPELINES_VENV) $(DOCS_VENV) $(CANDIDATES_VENV)
	rm -rf build dist site parity/dist demo-output parity.html *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
