# `make demo` and `make test` are all a newcomer needs; each sets up the environment first.
PYTHON ?= python3.11
EXTRA ?= cpu
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
# uv does not read pip's setting for local wheels; without one, torch's own CPU builds are asked for.
TORCH_SOURCE := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",$(if $(filter cpu,$(EXTRA)),--torch-backend cpu))

.PHONY: demo test test-fast lint bench install lock clean

demo: install
	$(BIN)/dllm2rec demo --config configs/demo.yaml

test: install
	$(BIN)/pytest -q

test-fast: install
	$(BIN)/pytest -q -m "not engine"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python -m benchmarks.student_step
	$(BIN)/python -m benchmarks.together
	$(BIN)/python -m benchmarks.teacher
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.serving

install: $(VENV)/.installed

$(VENV)/.installed: requirements/$(EXTRA).txt requirements/overrides.txt pyproject.toml
	test -x $(UV) || { $(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q uv==0.13.8; }
	$(UV) pip install -q --compile-bytecode --python $(BIN)/python --overrides requirements/overrides.txt $(TORCH_SOURCE) -r requirements/$(EXTRA).txt
	$(UV) pip install -q --python $(BIN)/python --no-deps --config-setting editable_mode=compat -e .
	touch $@

# Writes the pinned requirement files anew from pyproject.toml.
lock:
	$(UV) pip compile pyproject.toml --extra cpu --extra dev --overrides requirements/overrides.txt $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",--torch-backend cpu) --no-emit-index-url --no-emit-find-links --no-annotate --no-header -q -o requirements/cpu.txt
	$(UV) pip compile pyproject.toml --extra cuda --extra dev --overrides requirements/overrides.txt --no-emit-index-url --no-annotate --no-header -q -o requirements/cuda.txt

clean:
	rm -rf runs mlflow.db mlartifacts
