# All of it works from a clean clone; what is missing is installed first, or named. The longer
# parts are scripts/.
.DEFAULT_GOAL := help
.PHONY: help serve serverless serverless-local test check format bench simulate docs constraints clean
# Python's packages are compiled when they are first used; without that each of the many processes
# that the tests start compiles them again.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
CODE := src tests $(wildcard benchmarks) conftest.py serverless/app.py serverless/chalicelib
# What the serverless chatbot needs beside the server.
CHALICE := $(BIN)/python -c 'import boto3, chalice' 2>/dev/null || \
	$(BIN)/uv pip install --quiet --python .venv -c constraints.txt -e '.[server,chalice,dynamodb]'
ARGS ?=
SECONDS ?= 60

help:  ## List these commands (more arguments: make test ARGS="-k browser")
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve:  ## Run the chatbot; it prints its address
	@echo "Setting up and running the chatbot. Ctrl-C ends it."
	@scripts/environment server
	@exec $(BIN)/chatledger serve $(ARGS)

serverless:  ## Make serverless/ ready for chalice package, chalice deploy and aws cloudformation
	@echo "Making serverless/ ready to be packaged and deployed."
	@scripts/environment server
	@$(CHALICE)
	@scripts/serverless

serverless-local:  ## Run the serverless chatbot here, by chalice local (port: CHATLEDGER_PORT)
	@echo "Setting up and running the serverless chatbot. Ctrl-C ends it."
	@scripts/environment server
	@$(CHALICE)
	@cd serverless && exec ../$(BIN)/chalice local --stage local --no-autoreload --port $${CHATLEDGER_PORT:-8000} $(ARGS)

test:  ## Run all tests, against DynamoDB Local and in Chromium too
	@echo "Setting up and running all tests."
	@scripts/environment development
	@scripts/test-programs
	@exec $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadscope $(ARGS)

check:  ## Check form, lint, types, the direction of imports and names that no file may hold
	@echo "Checking form, lint, types, the direction of imports and names that no file may hold."
	@scripts/environment development
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy $(CODE)
	@$(BIN)/lint-imports --no-logo
	@scripts/no-private-names

format:  ## Bring the code into form
	@echo "Bringing the code into form."
	@scripts/environment development
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench:  ## Run the benchmarks
	@echo "Running the benchmarks."
	@scripts/environment development
	@scripts/bench-programs
	@exec $(BIN)/python -m benchmarks $(ARGS)

simulate:  ## Try simulated schedules of the DynamoDB store for so long (SECONDS=600, or SEED=7)
	@echo "Simulating."
	@scripts/environment development
	@exec $(BIN)/python -m chatledger.testing.simulation $(if $(SEED),--seed $(SEED),--seconds $(SECONDS)) $(ARGS)

docs:  ## Build the documentation into site/
	@echo "Building the documentation into site/."
	@scripts/environment development
	@$(BIN)/zensical build --strict

constraints:  ## Write constraints.txt anew from pyproject.toml (newest versions: ARGS=--upgrade)
	@echo "Writing constraints.txt anew."
	@scripts/environment uv
	@$(BIN)/uv pip compile --quiet --universal --all-extras --group dev --no-annotate --no-header \
		pyproject.toml -o constraints.txt $(ARGS)

clean:  ## Remove .venv, caches and built files, and no conversations
	@echo "Removing .venv, caches and built files."
	@rm -rf .venv .cache .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache dist site \
		serverless/vendor serverless/streaming/package serverless/.chalice/deployments
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
