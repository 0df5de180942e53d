# make run     install, set up and start everything
# make test    the whole test suite            make check   what CI checks: format, lint, types, contracts, schema, tests
# make test-fast   while you work: tests that start no process or browser and aren't slow
# make soak MINUTES=30   kills, crashes and outages under load; then compares the books with the upstream's ledger
# make limits  many keys on small budgets at once: is a limit overspent, is anything refused that fits?
# make clients try other people's clients in front of the gateway: SDKs, frameworks, coding agents
# make malformed   5,000 malformed bodies and headers for each endpoint, with each provider: no 500, no row without a call
# make bench   measure the gateway             make format  tidy the code       make requirements  update the pinned requirements
# make pages   open every page of the admin, for every role, light and dark, wide and narrow: errors, policy, accessibility
# make screenshots   take the documents' pictures of the admin, from demo data
# make bench-billing   measure the billing of a month with ten million calls

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes

# The settings that checks need, whatever .env says.
CHECK_ENV := LLM_ENV_FILE= HTTPS=true DATABASE_URL=sqlite://:memory: LLM_PROVIDER=echo \
	BILLING_SELLER_NAME=Example BILLING_SELLER_ADDRESS=Example BILLING_SELLER_TAX_ID=none \
	SECRET_KEY=only-for-make-check-0123456789-abcdefghijklmnopqrstuvwxyz LLM_KEY_PEPPER=only-for-make-check \
	LLM_SECRETS_KEY=only-for-make-check-too-0123456789-abcdefgh

# pytest rewrites test modules before it compiles them, which takes a while: keep the compiled files.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run pages screenshots test test-fast check lint bench bench-billing clients sdk-tests soak limits malformed format requirements

run: $(VENV)/runtime.stamp
	@$(PY) -m llmproject.envfile
	@exec $(PY) manage.py up --bootstrap

# TESTS="--durations 25" or TESTS="tests/llm -k limits" is passed on to pytest.
test: $(VENV)/dev.stamp
	$(PY) -m pytest -n auto --dist loadgroup $(TESTS)

test-fast: $(VENV)/dev.stamp
	$(PY) -m pytest -n auto --dist loadgroup --fast $(TESTS)

pages: $(VENV)/dev.stamp
	LLM_TEST_ALL_PAGES=yes $(PY) -m pytest -n0 tests/browser/test_pages.py

screenshots: $(VENV)/dev.stamp
	$(PY) -m tests.browser.screenshots

check: lint
	$(PY) -m pytest -n auto --dist loadgroup

lint: $(VENV)/dev.stamp
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(CHECK_ENV) $(VENV)/bin/mypy
	$(CHECK_ENV) $(VENV)/bin/lint-imports
	$(CHECK_ENV) $(PY) manage.py makemigrations --check --dry-run
	$(CHECK_ENV) $(PY) manage.py check --deploy --fail-level WARNING
	$(CHECK_ENV) $(PY) manage.py spectacular --validate --fail-on-warn --file /dev/null

bench: $(VENV)/dev.stamp
	$(PY) -m benchmarks.gateway
	$(PY) -m benchmarks.gateway --dialects --requests 1000

# Needs npm, and installs into .clients/. CLIENTS="--only codex --record" is passed on.
clients: $(VENV)/dev.stamp
	$(PY) -m tests.clients $(CLIENTS)

# OpenAI's own tests of its Python SDK. OPENAPI=openapi.yaml puts a mock of that document behind the gateway.
sdk-tests: $(VENV)/dev.stamp
	$(PY) -m tests.clients.sdk_tests $(if $(OPENAPI),--openapi $(OPENAPI))

# Ten million calls in a separate database, which takes 10 GB while it runs; ROWS=200000 is enough for a first look.
ROWS ?= 10000000
bench-billing: $(VENV)/dev.stamp
	$(PY) -m benchmarks.billing --rows $(ROWS)

# Starts its own PostgreSQL server, which crashes too; only root can mount the small disks that fill up.
MINUTES ?= 10
PROVIDER ?= openai
SEED ?= 1
soak: $(VENV)/dev.stamp
	$(PY) -m tests.faults.run --own-server $(if $(filter 0,$(shell id -u)),--full-disks) --sites 2 --workers 2 \
		--minutes $(MINUTES) --seed $(SEED) --provider $(PROVIDER) --kills 4 --crashes 1 --kill-pause 2 --outages 1 --outage-pause 4

LIMITS_DATABASE ?= postgres://postgres@127.0.0.1:5432
limits: $(VENV)/dev.stamp
	$(PY) -m tests.faults.run_limits --seed $(SEED) --database-url "$(LIMITS_DATABASE)"
	$(PY) -m tests.faults.run_limits --seed $(SEED)

REQUESTS ?= 5000
malformed: $(VENV)/dev.stamp
	$(PY) -m tests.malformed.run --seed $(SEED) --requests $(REQUESTS)

format: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# Keeps the pins that still fit; `make requirements UPGRADE=--upgrade` takes the newest.
COMPILE := $(VENV)/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-strip-extras \
	--custom-compile-command "make requirements"
requirements: $(VENV)/dev.stamp
	$(COMPILE) $(UPGRADE) --output-file requirements.txt pyproject.toml
	$(COMPILE) $(UPGRADE) --constraint requirements.txt --group dev --output-file requirements-dev.txt pyproject.toml

$(VENV)/created.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else \
		"Python 3.11, 3.12 or 3.13 is needed; name one, such as: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/runtime.stamp: $(VENV)/created.stamp requirements.txt
	@echo "Installing requirements.txt: this takes a minute or two, once"
	@$(PIP) --requirement requirements.txt
	@touch $@

# Includes the runtime requirements.
$(VENV)/dev.stamp: $(VENV)/created.stamp requirements-dev.txt
	@echo "Installing requirements-dev.txt: this takes a few minutes, once"
	@$(PIP) --requirement requirements-dev.txt
	@touch $@ $(VENV)/runtime.stamp
