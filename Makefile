# `make demo` and `make test` are all a newcomer needs; each sets up the environment first.
PYTHON ?= python3.11
EXTRA ?= cpu
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
# uv does not read pip's setting for local wheels; without one, torch's own CPU builds are asked for.
TORCH_SOURCE := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",$(if $(filter cpu,$(EXTRA)),--torch-backend cpu))

.PHONY: help demo test test-fast lint bench install lock clean

help: ## list the targets
	@grep -hE "^[a-z-]+:.*## " $(MAKEFILE_LIST) | sed -E "s/^([a-z-]+):.*## (.*)/  make \1\t\2/" | expand -t 20

demo: install ## the complete pipeline on synthetic data
	$(BIN)/dllm2rec demo --config configs/demo.yaml

test: install ## all tests
	$(BIN)/pytest -q -n 2

test-fast: install ## the tests that start no engine
	$(BIN)/pytest -q -m "not engine"

lint: install ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install ## the benchmarks beside their recorded ratios (QUICK=1: whether they run)
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

install: $(VENV)/.installed ## set up .venv (EXTRA=cuda on CUDA machines)

$(VENV)/.installed: requirements/$(EXTRA).txt requirements/overrides.txt pyproject.toml
	test -x $(UV) || { $(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q uv==0.13.8; }
	$(UV) pip install -q --compile-bytecode --python $(BIN)/python --overrides requirements/overrides.txt $(TORCH_SOURCE) -r requirements/$(EXTRA).txt
	$(UV) pip install -q --python $(BIN)/python --no-deps --config-setting editable_mode=compat -e .
	touch $@

# Writes the pinned requirement files again from pyproject.toml, for Python 3.11 to 3.13. torch's CPU builds are pinned by
# hand, for they are not where the other packages are.
EVERYWHERE := python_full_version < '3.14' and platform_machine == 'x86_64' and sys_platform == 'linux'
LOCK := $(UV) pip compile pyproject.toml --universal --python-version 3.11 --extra dev --overrides requirements/overrides.txt \
	--no-emit-index-url --no-annotate --no-header -q
lock: ## pin the requirements again from pyproject.toml
	echo 'torch; sys_platform == "never"' > $(VENV)/torch-apart.txt
	$(LOCK) --extra cpu --overrides $(VENV)/torch-apart.txt -o requirements/cpu.txt
	sed -i -E "/^(torch|torchvision|torchaudio|torchcodec)==/d; s/ ; $(EVERYWHERE)$$//" requirements/cpu.txt
	sed -n -E 's/^cpu = \["(torch==[0-9.]+)".*/\1+cpu/p' pyproject.toml >> requirements/cpu.txt
	$(LOCK) --extra cuda -o requirements/cuda.txt
	sed -i -E "/^(torchvision|torchaudio|torchcodec)==/d; s/ ; $(EVERYWHERE)$$//" requirements/cuda.txt

clean: ## remove runs and the local MLflow store
	rm -rf runs mlflow.db mlartifacts
