# Every command works in a clean clone: it first installs what is missing, or says what to install.
# The longer parts are in scripts/.
.DEFAULT_GOAL := help
.PHONY: help serve serverless serverless-local test check format bench simulate docs constraints clean
# Python must be allowed to write .pyc files: otherwise each of the many processes that the tests
# start would compile all packages again.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
CODE := src tests $(wildcard benchmarks) conftest.py $(wildcard scripts/*.py) serverless/app.py serverless/chalicelib
# Installs what the serverless chatbot needs in addition to the server.
CHALICE := $(BIN)/python -c 'import boto3, chalice' 2>/dev/null || \
	$(BIN)/uv pip install --quiet --python .venv -c constraints.txt -e '.[server,chalice,dynamodb]'
ARGS ?=
SECONDS ?= 60

help:  ## List these commands (more arguments: make test ARGS="-k browser")
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve:  ## Run the chatbot; it prints its address
	@echo "Setting up and running the chatbot. Stop it with Ctrl-C."
	@scripts/environment server
	@exec $(BIN)/chatledger serve $(ARGS)

serverless:  ## Prepare serverless/ for chalice package, chalice deploy and aws cloudformation
	@echo "Preparing serverless/ for deployment."
	@scripts/environment server
	@$(CHALICE)
	@scripts/serverless

serverless-local:  ## Run the serverless chatbot with chalice local (port: CHATLEDGER_PORT)
	@echo "Setting up and running the serverless chatbot. Stop it with Ctrl-C."
	@scripts/environment server
	@$(CHALICE)
	@cd serverless && exec ../$(BIN)/chalice local --stage local --no-autoreload --port $${CHATLEDGER_PORT:-8000} $(ARGS)

test:  ## Run all tests, including those with DynamoDB Local and Chromium
	@echo "Setting up and running all tests."
	@scripts/environment development
	@scripts/test-programs
	@exec $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadscope $(ARGS)

check:  ## Check formatting, lint, types, import directions and forbidden names
	@echo "Checking formatting, lint, types, import directions and forbidden names."
	@scripts/environment development
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy $(CODE)
	@$(BIN)/lint-imports --no-logo
	@scripts/no-private-names

format:  ## Format the code and fix lint
	@echo "Formatting the code."
	@scripts/environment development
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench:  ## Run the benchmarks
	@echo "Running the benchmarks."
	@scripts/environment development
	@scripts/bench-programs
	@exec $(BIN)/python -m benchmarks $(ARGS)

simulate:  ## Simulate schedules of the DynamoDB store for 60 seconds (SECONDS=600; one of them: SEED=7)
	@echo "Simulating schedules of the DynamoDB store."
	@scripts/environment development
	@exec $(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seconds $(SECONDS)) $(ARGS)

docs:  ## Build the documentation into site/
	@echo "Building the documentation into site/."
	@scripts/environment development
	@$(BIN)/python scripts/diagrams.py
	@$(BIN)/python scripts/settings_table.py
	@$(BIN)/zensical build --strict

constraints:  ## Regenerate constraints.txt from pyproject.toml (newest versions: ARGS=--upgrade)
	@echo "Regenerating constraints.txt."
	@scripts/environment uv
	@$(BIN)/uv pip compile --quiet --universal --all-extras --group dev --no-annotate --no-header \
		pyproject.toml -o constraints.txt $(ARGS)

clean:  ## Remove .venv, caches and built files, but no conversations
	@echo "Removing .venv, caches and built files."
	@rm -rf .venv .cache .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache dist site \
		serverless/vendor serverless/streaming/package serverless/.chalice/deployments
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
