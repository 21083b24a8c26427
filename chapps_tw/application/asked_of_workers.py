"""What the listeners of all workers have heard of Postfix: told by each worker, added up by the main process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from twisted.internet.task import LoopingCall

from chapps_tw.application.asked import Heard, ListenerStates
from chapps_tw.application.part import Part
from chapps_tw.observe.listener_requests import Asked, together
from chapps_tw.policies.stages import Need

# Seconds between two looks of a worker at what is new.
_TELL: Final = 1.0

Report: TypeAlias = Mapping[str, Sequence[Any]]
"""What each listener has heard, by name, in a form that JSON can represent."""


def report_of(heard: Mapping[str, Heard]) -> dict[str, list[Any]]:
    """Return a report."""
    return {name: [_asked(each.asked), dict(each.peers), _needs(each.learned)] for name, each in heard.items()}


def _asked(asked: Asked | None) -> list[Any] | None:
    if asked is None:
        return None
    return [asked.since, asked.at, [[*key, count] for key, count in asked.counts.items()]]


def _needs(learned: Iterable[Need]) -> list[list[Any]]:
    return [[need.what, sorted(need.stages), need.why] for need in learned]


def heard_in(report: Report) -> dict[str, Heard]:
    """Return what a report says."""
    return {name: _heard(*values) for name, values in report.items()}


def _heard(asked: Sequence[Any] | None, peers: Mapping[str, float], learned: Iterable[Sequence[Any]]) -> Heard:
    needs = [Need(what, frozenset(stages), why) for what, stages, why in learned]
    if asked is None:
        return Heard(None, peers, needs)
    since, at, counts = asked
    return Heard(Asked(since, at, {(stage, login): count for stage, login, count in counts}), peers, needs)


def all_of(processes: Iterable[Heard]) -> Heard:
    """Return what a listener has heard in several processes."""
    found = list(processes)
    peers: dict[str, float] = {}
    for each in found:
        for peer, at in each.peers.items():
            peers[peer] = max(at, peers.get(peer, at))
    asked = together(each.asked for each in found if each.asked is not None)
    return Heard(asked, peers, list(dict.fromkeys(need for each in found for need in each.learned)))


class WorkerReports:
    """The last report of each worker, and what those that have ended had heard."""

    def __init__(self) -> None:
        self._last: dict[int, Mapping[str, Heard]] = {}
        self._ended: Mapping[str, Heard] = {}

    def take(self, pid: int, report: Report, running: Collection[int]) -> None:
        """Take a report.

        :param pid: of the worker.
        :param running: those of all workers.
        """
        self._last[pid] = heard_in(report)
        for ended in [each for each in self._last if each not in running and each != pid]:
            last = self._last.pop(ended)
            # What a process that has ended had learned of the book, others have read since.
            self._ended = {
                name: all_of([*_of(self._ended, name), heard._replace(learned=())]) for name, heard in last.items()
            }

    def of(self, name: str) -> Heard:
        """Return what a listener has heard."""
        return all_of(heard for each in (*self._last.values(), self._ended) for heard in _of(each, name))


def _of(report: Mapping[str, Heard], name: str) -> list[Heard]:
    return [report[name]] if name in report else []


class Telling(Part):
    """Tells the main process what the listeners of a worker have heard.

    :param tell: called with each report that differs from the one before.
    """

    def __init__(self, states: ListenerStates, names: Sequence[str], tell: Callable[[Report], None], reactor: Any):
        self._states = states
        self._names = names
        self._tell = tell
        self._last: Report = {}
        self._telling = LoopingCall(self._look)
        self._telling.clock = reactor

    def start(self) -> None:
        """Tell it from now on."""
        self._telling.start(_TELL, now=False)

    def stop(self) -> None:
        """Tell it for the last time."""
        if self._telling.running:
            self._telling.stop()
            self._look()

    def _look(self) -> None:
        report = report_of({name: self._states.heard(name) for name in self._names})
        if _without_drift(report) != _without_drift(self._last):
            self._last = report
            self._tell(report)


def _without_drift(report: Report) -> list[Any]:
    """Return what differs if there was a request: the times of clients follow the time of day."""
    return [(name, asked, learned) for name, (asked, _, learned) in report.items()]


class StatesOfAll(ListenerStates):
    """What each listener of all workers was asked since the start."""

    def __init__(self, *values: Any, reports: WorkerReports) -> None:
        super().__init__(*values)
        self._reports = reports

    def heard(self, name: str) -> Heard:
        """Return what a listener has heard in all workers."""
        return self._reports.of(name)
