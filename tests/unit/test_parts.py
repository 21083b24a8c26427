"""The parts of the application: the order in which they start and stop, and one that cannot be stopped."""

from __future__ import annotations

from typing import cast

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from chapps_tw.application.part import Part, open_all, start_all, stop_all
from chapps_tw.application.start_errors import StartError


class Noting(Part):
    """Notes what is done to it."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def open(self) -> None:
        self.notes.append(f"open {self.name}")

    def start(self) -> None:
        self.notes.append(f"start {self.name}")

    def stop(self) -> Deferred[None] | None:
        self.notes.append(f"stop {self.name}")
        return None


class Waiting(Noting):
    """Is stopped when :attr:`stopped` fires."""

    def __init__(self, name: str, notes: list[str]) -> None:
        super().__init__(name, notes)
        self.stopped: Deferred[None] = Deferred()

    def stop(self) -> Deferred[None]:
        super().stop()
        return self.stopped


class Unopened(Noting):
    def open(self) -> None:
        raise StartError("It is not there.")


class Unstoppable(Noting):
    def stop(self) -> None:
        raise RuntimeError("It hangs on.")


class Idle(Part):
    """Has nothing to open, to start or to stop."""


def test_parts_start_in_order_and_stop_in_reverse() -> None:
    notes: list[str] = []
    parts = [Noting("state", notes), Idle(), Noting("api", notes)]
    open_all(parts)
    start_all(parts)
    done = Deferred.fromCoroutine(stop_all(parts))
    assert done.called
    assert notes == ["open state", "open api", "start state", "start api", "stop api", "stop state"]


def test_the_next_part_stops_when_the_one_before_it_has() -> None:
    notes: list[str] = []
    api = Waiting("api", notes)
    done = Deferred.fromCoroutine(stop_all([Noting("state", notes), api]))
    assert notes == ["stop api"]
    api.stopped.callback(None)
    assert done.called
    assert notes == ["stop api", "stop state"]


def test_after_one_that_cannot_be_opened_none_is() -> None:
    notes: list[str] = []
    with pytest.raises(StartError, match="It is not there"):
        open_all([Noting("state", notes), Unopened("book", notes), Noting("api", notes)])
    assert notes == ["open state"]


@pytest.mark.parametrize("late", [False, True])
def test_one_that_fails_in_its_stop_is_told_and_keeps_no_other_from_being_stopped(late: bool) -> None:
    notes: list[str] = []
    told: list[LogEvent] = []
    observer = cast(ILogObserver, told.append)
    globalLogPublisher.addObserver(observer)
    try:
        failing = Waiting("dns", notes) if late else Unstoppable("dns", notes)
        done = Deferred.fromCoroutine(stop_all([Noting("state", notes), failing, Noting("api", notes)]))
        if isinstance(failing, Waiting):
            failing.stopped.errback(RuntimeError("It hangs on."))
    finally:
        globalLogPublisher.removeObserver(observer)
    assert done.called
    assert (notes[0], notes[-1]) == ("stop api", "stop state")
    [event] = told
    assert event["part"] == type(failing).__name__
    assert "It hangs on." in event["log_failure"].getTraceback()
