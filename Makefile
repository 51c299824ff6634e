# The short ways in. Everything runs in .venv, made from pyproject.toml and constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: study test check bench simulate faults lecture ui clean-env

study: .venv/ready          ## run the study `quickstart` and print its result
	$(BIN)/optstudy run study=quickstart

test: .venv/ready           ## run the tests
	$(BIN)/pytest

check: .venv/ready          ## all that CI runs: lint, format, types, tests, some faults
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest
	FAULTS_KILLS=2 $(BIN)/pytest tests/faults -m faults -n 2 -k "(kills or server or clock) and not twelve"

bench: .venv/bench          ## measure speed and memory, beside other libraries; results in tests/benchmarks/results
	@status=0; for file in tests/benchmarks/test_*.py; do \
		$(BIN)/pytest $$file -m benchmark -n 0 -s --timeout 1800 || status=1; \
	done; exit $$status

simulate: .venv/ready       ## how often statistics and warnings err; rewrites the tables of docs/method.md
	$(BIN)/pytest tests/simulation -m simulation -n 2 --timeout 900 --durations=0 --durations-min=1

faults: .venv/ready         ## kill workers, machines and all, at random moments, and count what is lost
	$(BIN)/pytest tests/faults -m faults -n 0 -s --timeout 1200

lecture: .venv/ready        ## run every study of docs/lecture.md, about six hours, and fill the page
	$(BIN)/python docs/lecture.py --commands | while read -r command; do \
		$(BIN)/$$command </dev/null || exit 1; done
	$(BIN)/python docs/lecture.py

ui: .venv/ready             ## browse every run in MLflow
	$(BIN)/optstudy ui

clean-env:                  ## remove the environment; the next command makes it anew
	rm -rf .venv

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11; try: make PYTHON=python3.11 …"; exit 1; }
	@echo "making the environment in .venv (two to five minutes, 5 GB) …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch .venv/ready

.venv/bench: .venv/ready
	@echo "adding the libraries to compare with …"
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	@touch .venv/bench
