"""Tells all who want to know of it what was answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from chapps_tw.mail.decision import Decision
from chapps_tw.observe.decision_record import Entry, entry_of
from chapps_tw.observe.metrics import Metrics
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.pipeline import Answer, Pipeline

# A bug is logged once in so many seconds.
FAILURE_SECONDS = 60.0


class Reporter:
    """Tells what happened: counts it, and hands each decision to the sinks.

    :param sinks: called with the entry of each decision, as the ring and the log; do not block.
    :param reactor: for durations.
    :param now: epoch seconds.
    """

    log = Logger()

    def __init__(
        self,
        metrics: Metrics,
        sinks: Sequence[Callable[[Entry], None]],
        reactor: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        self._metrics = metrics
        self._sinks = tuple(sinks)
        self._reactor = reactor
        self._now = now
        self._told: dict[str, float] = {}

    def answered(self, pipeline: Pipeline, request: OutboundPPR, answer: Answer, started: float) -> None:
        """Report an answer that was sent.

        :param started: when the question came, by the clock of the reactor.
        """
        listener, sent = pipeline.listener, answer.decision
        self._metrics.answered(listener, answer.decisions, self._reactor.seconds() - started)
        now, user = self._now(), request.known_user
        for decision in answer.decisions:
            if decision.shadow and decision is not sent:
                self._tell(entry_of(listener, user, request, decision, now))
        self._tell(entry_of(listener, user, request, sent, now, beside(sent, answer.decisions)))

    def _tell(self, entry: Entry) -> None:
        for sink in self._sinks:
            sink(entry)

    def failed(self, policy: str, error: Exception) -> None:
        """Log what a policy did not foresee; the same again only after a while."""
        place = f"{policy} {type(error).__name__}"
        moment = self._reactor.seconds()
        if moment - self._told.get(place, -inf) >= FAILURE_SECONDS:
            self._told[place] = moment
            self.log.failure("{policy} failed", Failure(error), policy=policy)


def beside(sent: Decision, decisions: Sequence[Decision]) -> str:
    """What policies said after the one that answers: ``policy:reason``, with a comma between two; mostly nothing.

    Greylisting lets mail pass, or does not want it, for one, and what is sent is the header that SPF gave it. Those
    before the one that answers are left out: they let the mail through, or it would not have been asked. So are
    those in shadow mode that have a record of their own.

    :param decisions: of every policy that was asked, in order.
    """
    if decisions[-1].policy == sent.policy:
        return ""
    names = [decision.policy for decision in decisions]
    after = decisions[names.index(sent.policy) + 1 :]
    return ",".join([f"{decision.policy}:{decision.reason}" for decision in after if not decision.shadow])
