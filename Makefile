# gelkit: from a folder of gel images to 24 compared configurations.
# `make` runs everything on a drawn sample set; `make help` lists the targets and variables.

DATA ?= samples
TEST ?=
WEIGHTS ?= auto
CACHE ?= features
SECONDS ?= 60
PYTHON ?= $(firstword $(foreach version,3.11 3.12 3.13,$(shell command -v python$(version))) python3)
TORCH_INDEX ?=

TPU_CHIPS := 0x(0027|005e|0063|006f|0056|0062|0076)
TPU := $(shell grep -lx 0x1ae0 /sys/bus/pci/devices/*/vendor 2>/dev/null \
	| sed 's/vendor$$/device/' | xargs -r grep -lxE '$(TPU_CHIPS)')
LINUX := $(filter Linux,$(shell uname -s))
COMMA := ,
EXTRA := $(if $(LINUX),$(if $(TPU),tpu,xla)$(COMMA))pretrained

NAME := $(shell basename "$(DATA)" .csv)
OUT ?= results/$(NAME)
GELKIT := .venv/bin/gelkit
RECIPE = --cache "$(CACHE)" --weights "$(WEIGHTS)" $(if $(LINUX),$(if $(TPU),,--emulate-tpu))

.PHONY: all features heads evaluate test test-all test-processors fuzz docs check format clean clean-all help
.DEFAULT_GOAL := all

all: evaluate  ## everything on the sample set (or DATA=), from nothing to results.csv
	@$(if $(filter samples,$(DATA)),cp "$(OUT)/results.csv" results.csv && echo "Copied:  results.csv",true)

features: .venv/installed $(if $(filter samples,$(DATA)),samples)  ## stage one: embed DATA's images, cpu and (Linux) tpu; only what is missing
	$(GELKIT) features "$(DATA)" --hardware cpu $(if $(LINUX),--hardware tpu) $(RECIPE)

heads: features  ## stage two: cross-validate, compare and save the 24 heads
	$(GELKIT) heads "$(DATA)" --out "$(OUT)" $(RECIPE)

evaluate: heads  ## score the saved heads on TEST=, and show the best rows
	$(GELKIT) evaluate --out "$(OUT)" --cache "$(CACHE)" $(if $(TEST),--test "$(TEST)")

samples: .venv/installed  ## draw the synthetic sample set
	@test -d $@/gel || $(GELKIT) samples $@

PYTEST := OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses logical --maxprocesses 4

test: .venv/installed-test  ## run the tests, but for those that take long
	$(PYTEST) --dist worksteal

test-all: .venv/installed-test  ## run all tests: fault states, fuzzing, clusters and others, too
	$(PYTEST) --dist worksteal --all

test-processors: .venv/installed-test  ## run the tests of arithmetic as on older processors, too
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --all --capture no tests/test_processors.py

fuzz: .venv/installed-test  ## damage files of every kind for SECONDS=, and see that nothing breaks
	OMP_NUM_THREADS=1 .venv/bin/python -m tests.fuzz --seconds $(SECONDS)

docs: .venv/installed-test  ## build the documentation into docs/_build/html
	.venv/bin/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

check: .venv/installed-dev  ## formatter, linter, type checker (as on Linux, macOS and Windows)
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	@$(MAKE) --no-print-directory --jobs 2 types-on-linux types-on-darwin types-on-win32

types-on-%:
	.venv/bin/mypy --platform $* --cache-dir .mypy_cache/$*

format: .venv/installed-dev  ## let the formatter and the linter mend what they can
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

clean:  ## remove the demonstration and build files; caches in features/ and your results stay
	rm -rf samples results/samples results.csv build dist docs/_build *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

clean-all: clean  ## also remove .venv
	rm -rf .venv

help:  ## list the targets and variables
	@echo "Targets:"
	@awk -F ':.*  ## ' '/^[a-z-]*:.*  ## /{printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables:"
	@echo "  DATA=        folder with a sub-folder for each class, or a CSV manifest [$(DATA)]"
	@echo "  TEST=        held-out images of the same classes, for evaluate"
	@echo "  WEIGHTS=     imagenet, random, or auto: pretrained where they can be had [$(WEIGHTS)]"
	@echo "  SECONDS=     how long to fuzz [$(SECONDS)]"
	@echo "  CACHE=       folder of the embeddings [$(CACHE)]"
	@echo "  OUT=         folder of the results [$(OUT)]"
	@echo "  TORCH_INDEX= index of torch builds to install from, such as CPU builds"
	@echo "  PYTHON=      Python 3.11 to 3.13 [$(PYTHON)]"
	@echo "This machine: $(if $(LINUX),tpu runs on $(if $(TPU),a TPU,XLA's CPU client (emulated)),no tpu without Linux)."

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Expected Python 3.11 to 3.13. Received: $$($(PYTHON) --version). Set PYTHON=."; exit 2; }
	@$(PYTHON) -m venv .venv
	@.venv/bin/pip install -qq --upgrade pip

.venv/installed: .venv/bin/pip setup.cfg pyproject.toml
	@echo "Installing gelkit and PyTorch into .venv (some minutes; help: make help)"
	@$(if $(TORCH_INDEX),.venv/bin/pip install -qq --index-url "$(TORCH_INDEX)" "torch==2.9.*" "torchvision==0.24.*",true)
	@.venv/bin/pip install -qq --editable ".[$(EXTRA)]"
	@touch $@

.venv/installed-test: .venv/installed
	@.venv/bin/pip install -qq --editable ".[$(EXTRA),test]"
	@touch $@

.venv/installed-dev: .venv/installed-test
	@.venv/bin/pip install -qq --editable ".[$(EXTRA),dev]"
	@touch $@
