"""Configuration of pytest, Hypothesis and Trial for all tests."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings
from twisted.trial import util

from tests.support import guard
from tests.support.examples import examples
from tests.support.servers.common import took_part

# Shells start background jobs with SIGINT ignored, which the servers of the tests would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: a busy machine may stall in the middle of an example.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=examples(100)
)
settings.load_profile("patient")

# Seconds until a Trial test counts as hanging: longer than any wait in a test, shorter than the timeout of pytest.
util.DEFAULT_TIMEOUT_DURATION = 500.0

# Without compiled modules, each program that the tests start would compile the service again, a fifth of its start.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

guard.begin()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without garbage collection: all that they import is permanent."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of the servers that were in use to the report of a failure."""
    report = yield
    if report.failed:
        for process in took_part:
            report.sections.append((f"log of {' '.join(process.command)[:160]}", process.last_words()))
    if report.when == "teardown":
        took_part[:] = [process for process in took_part if process.popen.poll() is None]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the total duration of the tests of each part of the suite, which may run in parallel."""
    spent: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                spent["/".join(report.nodeid.split("/")[:2])] += report.duration
    for part, seconds in sorted(spent.items()):
        terminalreporter.write_line(f"{part}: {seconds:.0f} s")
