"""Reports answers and events to the metrics, the decision ring and the logs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from math import inf
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.observe.decision_record import Entry, entry_of
from chapps_tw.observe.listener_requests import ListenerRequests
from chapps_tw.observe.metrics import Metrics
from chapps_tw.policies.events import LimitEvent
from chapps_tw.postfix.protocol import Answered

# Seconds during which the same bug is not logged again.
FAILURE_SECONDS = 60.0


class Reporter:
    """Counts answers, and passes each decision to the sinks.

    :param requests: counts the requests.
    :ivar sinks: called with the entries of decisions, such as the ring and the log; must not block.
    :param monotonic: seconds, for durations.
    :param now: epoch seconds.
    """

    log = Logger()

    def __init__(
        self,
        metrics: Metrics,
        requests: ListenerRequests,
        sinks: Sequence[Callable[[Sequence[Entry]], None]],
        monotonic: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._metrics = metrics
        self._requests = requests
        self.sinks = sinks
        self._monotonic = monotonic
        self._now = now
        self._logged: dict[str, float] = {}
        self._observers: list[Callable[[LimitEvent], None]] = []

    def observe(self, observer: Callable[[LimitEvent], None]) -> None:
        """Call an observer with each event that this node is the first to note; it must not block."""
        self._observers.append(observer)

    def answered(self, listener: str, answers: Sequence[Answered]) -> None:
        """Report answers that were just sent."""
        moment, now = self._monotonic(), self._now()
        entries: list[Entry] = []
        for request, (sent, decisions), started in answers:
            user = request.known_user
            self._metrics.answered(listener, decisions, moment - started)
            self._requests.add(listener, request, now)
            if len(decisions) == 1:
                entries.append(entry_of(listener, user, request, sent, now))
                continue
            for decision in decisions:
                if decision.shadow and decision is not sent:
                    entries.append(entry_of(listener, user, request, decision, now))
            entries.append(entry_of(listener, user, request, sent, now, beside(sent, decisions)))
        self.pass_on(entries)

    def pass_on(self, entries: Sequence[Entry]) -> None:
        """Pass decisions to the sinks."""
        for sink in self.sinks:
            sink(entries)

    def near_limit(self, event: LimitEvent) -> None:
        """Count and log an event near a limit, and pass it to the observers."""
        self._metrics.limit_events[event.kind] += 1
        # Not as values of their own: the logger has a level, too.
        figures = "{event.used} of {event.amount} ({event.kind})"
        self.log.info("{event.level} limit {event.limit}: {event.account!r} has used " + figures, event=event)
        self.tell(event)

    def tell(self, event: LimitEvent) -> None:
        """Pass an event near a limit to the observers."""
        for observer in self._observers:
            observer(event)

    def warn(self, sentence: str) -> None:
        """Log a sentence for the administrator."""
        self.log.warn("{sentence}", sentence=sentence)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that no answer waits for. An unexpected exception is logged."""
        Deferred.fromCoroutine(self._run(work))

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self.failed("Events", error)

    def failed(self, policy: str, error: Exception) -> None:
        """Log an unexpected exception of a policy; the same one only once per ``FAILURE_SECONDS``."""
        place = f"{policy} {type(error).__name__}"
        moment = self._monotonic()
        if moment - self._logged.get(place, -inf) >= FAILURE_SECONDS:
            self._logged[place] = moment
            self.log.failure("{policy} failed", Failure(error), policy=policy)


def beside(sent: Decision, decisions: Sequence[Decision]) -> str:
    """Return the reasons of other policies than the one that answers, as ``policy:reason``, joined by commas.

    It is usually empty. An example is greylisting that lets mail pass after SPF added a header, which is the answer.
    Policies before the one that answers are omitted, unless an exemption is in force: they let the mail pass, or that
    policy would not have run. So are policies in shadow mode, which have their own record.

    :param decisions: of every policy that ran, in order.
    """
    others, is_after = [], False
    for decision in decisions:
        if decision.policy == sent.policy:
            is_after = True
        elif decision.reason is Reason.EXEMPTED or (is_after and not decision.shadow):
            others.append(f"{decision.policy}:{decision.reason}")
    return ",".join(others)
