"""Batches of the decision log."""

from __future__ import annotations

from twisted.internet.task import Clock

from chapps_tw.observe.decision_log import DecisionLog
from chapps_tw.observe.decision_record import as_text
from tests.support.decisions import entry


def test_lines_are_written_in_batches() -> None:
    clock = Clock()
    written: list[bytes] = []
    log = DecisionLog(as_text, written.append, clock.callLater)
    first, second = entry(), entry(sender="two \udce9@example.org")
    log.extend([first])
    log.extend([second])
    assert written == []
    clock.advance(0.1)
    assert written == [f"{as_text(first)}\n{as_text(second)}\n".encode()]
    clock.advance(1)
    log.extend([first])
    clock.advance(0.1)
    assert len(written) == 2


def test_pending_lines_can_be_flushed() -> None:
    clock = Clock()
    written: list[bytes] = []
    log = DecisionLog(as_text, written.append, clock.callLater)
    log.extend([entry()])
    log.flush()
    assert len(written) == 1
    log.flush()
    clock.advance(0.1)
    assert len(written) == 1
