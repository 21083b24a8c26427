# make setup | run | test | test-fast | test-packages | lint | bench | farm | conf | docs | lock | dist | clean
#
# PYTHON=...       the Python to make .venv with, 3.11 or later
# PYTEST_ARGS=...  more arguments for pytest

BIN := .venv/bin
# .venv with what the service needs, and with what its tests need as well.
RUN := .venv/.made-run
TEST := .venv/.made-test
# The version of the Debian package: builds of a version that is not yet released are older than its release.
VERSION = $(shell $(BIN)/python -c 'import chapps_tw; print(chapps_tw.__version__)')
COMMIT := $(shell git rev-list --count HEAD 2>/dev/null)
TAGGED := $(shell git describe --exact-match --tags --match 'v*' 2>/dev/null)
export SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2>/dev/null),$(shell date +%s))

.PHONY: setup run test test-fast test-packages lint bench farm conf docs lock dist clean

setup: $(TEST)

$(RUN): setup.cfg pyproject.toml requirements/build.txt requirements/run.txt
	@tools/make-venv .venv run $(PYTHON)
	@touch $@

$(TEST): setup.cfg pyproject.toml requirements/build.txt requirements/test.txt
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
	$(BIN)/python -m pytest -n 4 --dist loadscope --no-loadscope-reorder --ignore tests/packages $(PYTEST_ARGS)

# The Debian package in bare Debian 12 and 13, and the image, as root; needs debhelper, mmdebstrap, systemd-container and
# podman. What is downloaded and the oldest package, which takes minutes, are kept in ~/.cache/chapps-tests.
test-packages: dist
	CHAPPS_TEST_DEB=$$(ls dist/*.deb) $(BIN)/python -m pytest -o timeout=1800 tests/packages $(PYTEST_ARGS)

# What needs no database server, no Postfix and no browser.
test-fast: $(TEST)
	$(BIN)/python -m pytest -n 2 tests/unit tests/contract $(PYTEST_ARGS)

bench: $(TEST)
	$(BIN)/python -m bench

# Two nodes, Redis with Sentinels, PostgreSQL and two Postfixes under load, while parts of them fail. As root.
farm: $(TEST)
	PYTHONPATH=. $(BIN)/python tools/farm.py

# The sample configuration, from the settings.
conf: $(RUN)
	CHAPPS_CONFIG= $(BIN)/chapps-cli --config '' admin flush-config --to conf/chapps.ini
	chmod 644 conf/chapps.ini

# The site of the documentation. The variable turns off a notice about the next major version of mkdocs.
docs: $(TEST)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# The newest releases of all libraries and tools that setup.cfg admits, and their licences.
lock: $(TEST)
	tools/lock $(BIN)
	$(MAKE) setup
	$(BIN)/python tools/licences.py

# The source distribution, the wheel, the wheels that it needs, and the Debian package (with debhelper).
dist: $(TEST)
	rm -rf dist
	$(BIN)/uv build --quiet --python $(BIN)/python --require-hashes --build-constraints requirements/build.txt
	rm -f dist/.gitignore
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --require-hashes --no-build-isolation --use-pep517 \
		--no-deps --wheel-dir dist/wheelhouse --requirement requirements/build.txt --requirement requirements/run.txt
	VERSION=$(if $(TAGGED),$(TAGGED:v%=%),$(VERSION)$(COMMIT:%=~%)) tools/make-deb $(BIN) dist/*.tar.gz dist

clean:
	rm -rf .venv .chapps-0.5* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info var twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
