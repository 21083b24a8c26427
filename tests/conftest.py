"""For all tests."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Generator

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, settings

from tests.support import guard
from tests.support.servers.common import took_part

# A job in the background is started with it ignored, and so would be all that the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The machine may be held up in the middle of an example.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

guard.begin()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of the servers that took part to what a failure says."""
    report = yield
    if report.failed:
        for process in took_part:
            report.sections.append((f"log of {' '.join(process.command)[:160]}", process.last_words()))
    if report.when == "teardown":
        took_part[:] = [process for process in took_part if process.popen.poll() is None]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long each part of the suite took: seconds of tests, which run side by side."""
    spent: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                spent["/".join(report.nodeid.split("/")[:2])] += report.duration
    for part, seconds in sorted(spent.items()):
        terminalreporter.write_line(f"{part}: {seconds:.0f} s")


ATTEMPTS = 3
# Seconds from the start after which a test is not begun again: pytest's own timeout is for all attempts together.
LATEST = 90.0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test marked ``timed`` up to three times: the machine, and not what is tested, may have been late.

    What was tried again is among the warnings of the run. Such a test has no subtests: those are told as they fail.
    """
    if item.get_closest_marker("timed") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    begin = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        failed = next((report for report in reports if report.failed), None)
        if failed is None or attempt == ATTEMPTS or time.monotonic() > begin + LATEST:
            break
        why = "\n".join(line for line in failed.longreprtext.splitlines() if line.startswith("E "))
        item.warn(pytest.PytestWarning(f"attempt {attempt} failed:\n{why}"))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
