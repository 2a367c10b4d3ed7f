# All that a person or CI ever runs. `make demo` and `make test` begin with `make setup`.
PYTHON ?= python3
BIN := .venv/bin
CODE := sdk control_plane router data_plane_agent tests examples bench tools

.PHONY: setup demo test histories model mutations check bench report proto format clusters clusters-down

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@bash tools/setup.sh "$(PYTHON)"
	@touch $@

demo: setup
	@$(BIN)/python examples/demo.py

test: setup
	$(BIN)/python -m pytest

# After a change of a durable story: what it says to Temporal today, to be replayed tomorrow.
histories: setup
	$(BIN)/python -m tests.control_plane.movement.record

model: setup
	$(BIN)/python -m tests.model --all

# Each guard of the protocol taken out of a copy of the code: which test notices?
mutations: setup
	$(BIN)/python -m tests.mutations

check: setup
	$(BIN)/ruff check $(wildcard $(CODE))
	$(BIN)/ruff format --check $(wildcard $(CODE))
	$(BIN)/pyright
	$(BIN)/lint-imports
	bash tools/proto.sh --check

format: setup
	$(BIN)/ruff check --fix $(wildcard $(CODE))
	$(BIN)/ruff format $(wildcard $(CODE))

# Three real Kubernetes clusters on this machine, as root, for `whimbrel up --kubeconfig`.
clusters: setup
	@$(BIN)/python -m tests.e2e.kubernetes up

clusters-down: setup
	@$(BIN)/python -m tests.e2e.kubernetes down

bench: setup
	$(BIN)/python -m bench

report: setup
	$(BIN)/python -m bench.report

proto: setup
	bash tools/proto.sh
