"""For all tests."""

from __future__ import annotations

import signal
import time

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, settings

# A job in the background is started with it ignored, and so would be all that the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The machine may be held up in the middle of an example.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

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
