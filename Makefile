# make setup | run | test | test-fast | lint | bench | conf | docs | clean
#
# PYTHON=...       the Python to make .venv with, 3.11 or later
# PYTEST_ARGS=...  more arguments for pytest

BIN := .venv/bin
# .venv with what the service needs, and with what its tests need as well.
RUN := .venv/.made-run
TEST := .venv/.made-test

.PHONY: setup run test test-fast lint bench conf docs clean

setup: $(TEST)

$(RUN): setup.cfg pyproject.toml
	@tools/make-venv .venv run $(PYTHON)
	@touch $@

$(TEST): setup.cfg pyproject.toml
	@tools/make-venv .venv test $(PYTHON)
	@touch $(RUN) $@

run: $(RUN)
	@$(BIN)/python tools/run.py

lint: $(TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_layers.py

# More at a time than a small machine has cores: most of them wait for servers. In the order of the files, so that the
# unit tests are last: they are short, and keep all workers busy until the end.
test: lint
	$(BIN)/python -m pytest -n 4 --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

# What needs no database server, no Postfix and no browser.
test-fast: $(TEST)
	$(BIN)/python -m pytest -n 2 tests/unit tests/contract $(PYTEST_ARGS)

bench: $(TEST)
	$(BIN)/python -m bench

# The sample configuration, from the settings.
conf: $(RUN)
	CHAPPS_CONFIG= $(BIN)/chapps-cli --config '' admin flush-config --to conf/chapps.ini
	chmod 644 conf/chapps.ini

# The site of the documentation. The variable turns off a notice about the next major version of mkdocs.
docs: $(TEST)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

clean:
	rm -rf .venv .chapps-0.5* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info var twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
