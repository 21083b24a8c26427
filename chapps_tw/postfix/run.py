"""One request on its way through the policies of a listener."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred

from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.reply import Reply
from chapps_tw.interfaces.state import Charge, Outdated, Spent, StateUnavailable
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.charging import message_of
from chapps_tw.policies.pending import Asked, Decided, PendingDecision, charge
from chapps_tw.policies.slots import PASS, Answer, Pending, PolicySlot, insert, sent, shadowed
from chapps_tw.postfix.pipeline import Pipeline

_DECIDED = (Decision, PendingDecision)
_OUTDATED = Outcome.OUTDATED

# How often policies decide again because they relied on values that are outdated.
_MOST_ATTEMPTS: Final = 10

_NOTHING = Decision(PASS, Reason.STATE_UNAVAILABLE, "")


class Run:
    """Answers one request. :meth:`start` starts it.

    The answer is the first decision that stops the mail; otherwise the last one other than DUNNO. If a policy fails,
    its ``on_failure`` applies. It uses callbacks, since coroutines take several times as long.

    :param answered: called with the answer, once.
    """

    __slots__ = (
        "_answered",
        "_attempt",
        "_conclude",
        "_decisions",
        "_pending",
        "_pipeline",
        "_request",
        "_slot",
        "_slots",
        "_waiting",
    )

    def __init__(self, pipeline: Pipeline, request: OutboundPPR, answered: Callable[[Answer], None]) -> None:
        self._pipeline = pipeline
        self._request = request
        self._answered = answered
        self._attempt = 1
        self._waiting: Reply[Any] | Deferred[Any] | None = None
        self._decisions: list[Decision]
        self._pending: Sequence[Pending]

    def start(self) -> None:
        """Answer by what the policies said about an earlier request that is alike, or ask them."""
        said = self._pipeline.asked_before.find(self._request)
        if said is None:
            self._begin()
            return self._ask()
        self._decisions, self._pending = [*said.decisions], said.pending
        return self._spend(said.charges, said.reserve)

    def _begin(self) -> None:
        self._decisions = []
        self._pending = ()
        self._slots = iter(self._pipeline.asked(self._request, self._decisions))
        self._slot: PolicySlot
        self._conclude: Callable[[Any], Decided | Awaitable[Decided]]

    @property
    def time_limit(self) -> float:
        """Seconds that the request may take."""
        return self._pipeline.time_limit

    def cancel(self) -> None:
        """Have what the request waits for fail."""
        if self._waiting is not None:
            self._waiting.cancel()

    def abandon(self) -> None:
        """Do nothing more, and do not answer."""
        if isinstance(self._waiting, Deferred):
            self._waiting.pause()
        elif self._waiting is not None:
            self._waiting.then(_ignore, _ignore)

    def _ask(self) -> None:
        """Ask the policies that are left, until one stops the mail or has to wait."""
        for slot in self._slots:
            self._slot = slot
            try:
                decided = slot.policy.decide(self._request, self._decisions)
            except Exception as error:
                return self._failed(error)
            if isinstance(decided, Asked):
                self._waiting, self._conclude = decided
                return self._waiting.then(self._replied, self._failed)
            if not isinstance(decided, _DECIDED):
                return self._wait(decided)
            if self._stops(decided):
                return self._finish()
        if not self._pending:
            return self._finish()
        self._pipeline.asked_before.keep(self._request, self._decisions, self._pending)
        return self._charge()

    def _wait(self, awaitable: Awaitable[Decided]) -> None:
        self._waiting = waiting = _deferred(awaitable)
        waiting.addCallbacks(self._decided, lambda failure: self._failed(failure.value))

    def _replied(self, reply: Any) -> None:
        try:
            decided = self._conclude(reply)
        except Exception as error:
            return self._failed(error)
        return self._decided(decided) if isinstance(decided, _DECIDED) else self._wait(decided)

    def _decided(self, decided: Decided) -> None:
        if self._stops(decided):
            self._finish()
        else:
            self._ask()

    def _failed(self, error: Exception) -> None:
        if isinstance(error, Outdated):
            self._again()
        else:
            slot = self._slot
            if not (slot.inbound or slot.both):
                # It may have failed before it looked, and whose mail it was is asked after an outage.
                self._request.find_user()
            self._decided(self._pipeline.failure(slot, error))

    def _stops(self, decided: Decided) -> bool:
        """Add a decision; return whether it stops the mail."""
        slot = self._slot
        if isinstance(decided, PendingDecision):
            self._pending = [*self._pending, Pending(slot, decided, len(self._decisions))]
            return False
        try:
            stopping = decided.stops
        except Exception as error:
            # A policy of another package that returns no Decision has failed.
            decided = self._pipeline.failure(slot, error)
            stopping = decided.stops
        if slot.shadow:
            decided, stopping = shadowed(decided), False
        self._decisions.append(decided)
        return stopping

    def _again(self) -> None:
        """Let all policies decide again: they relied on values that are outdated."""
        if self._attempt >= _MOST_ATTEMPTS:
            error = StateUnavailable("cached values change too often to decide")
            answer = self._pipeline.failure(self._pipeline.failing(self._request, _NOTHING), error)
            return self._answered(Answer(answer, [answer]))
        self._attempt += 1
        self._request.rely_on_nothing()
        self._begin()
        return self._ask()

    # --- charging ---

    def _charge(self) -> None:
        """Charge the request, with the pending decisions."""
        pending = self._pending
        slot, (charges, _, reserve, advisory), _ = pending[0]
        if advisory or slot.shadow:
            return self._finally(self._charge_all())
        for slot, (others, _, least, advisory), _ in pending[1:]:
            if advisory or slot.shadow:
                return self._finally(self._charge_all())
            charges, reserve = [*charges, *others], min(reserve, least)
        # Fast path: all that is charged may stop the mail.
        return self._spend(charges, reserve)

    def _spend(self, charges: Sequence[Charge], reserve: float) -> None:
        request = self._request
        message = message_of(request, request.get("protocol_state"), reserve)
        try:
            self._waiting = self._pipeline.state.spend(message, charges, request.version)
        except Exception as error:
            return self._not_charged(error)
        return self._waiting.then(self._charged, self._not_charged)

    def _charged(self, spent: Spent) -> None:
        if spent.outcome is _OUTDATED:
            return self._again()
        self._request.rely_on_nothing()
        pending = self._pending
        if len(pending) == 1:
            found: list[Decision | None] = [self._concluded(pending[0], spent)]
        else:
            found = self._concluded_by_each(spent)
        if spent.decisive >= 0 and len(spent.used) > 1 and not any(each.stops for each in found if each):
            # Without the charge that does not fit, the others may.
            return self._finally(self._charge_all())
        self._insert(found)
        return self._finish()

    def _concluded(self, pending: Pending, spent: Spent) -> Decision:
        """Return the decision of a policy that is no longer pending."""
        slot, (charges, conclude, _, _), _ = pending
        try:
            return conclude(self._request, charges, spent)
        except Exception as error:
            return self._pipeline.failure(slot, error)

    def _concluded_by_each(self, spent: Spent) -> list[Decision | None]:
        """Return the decisions of all policies, ``None`` for each if another one stops the mail."""
        found: list[Decision | None] = []
        begin = 0
        for each in self._pending:
            end = begin + len(each.decision.charges)
            decides = spent.decisive < 0 or begin <= spent.decisive < end
            found.append(self._concluded(each, _part(spent, begin, end)) if decides else None)
            begin = end
        return found

    def _not_charged(self, error: Exception) -> None:
        self._insert([self._pipeline.failure(each.slot, error) for each in self._pending])
        self._finish()

    async def _charge_all(self) -> Callable[[], None]:
        """Charge the request for several policies; return what to do next."""
        request, pending, state = self._request, self._pending, self._pipeline.state
        reserve = min([each.decision.reserve for each in pending])
        message = message_of(request, request.get("protocol_state"), reserve)

        async def spend(charges: Sequence[Charge]) -> Spent:
            spent = await state.spend(message, charges, request.version)
            if spent.outcome is _OUTDATED:
                raise Outdated
            request.rely_on_nothing()
            return spent

        decisions, enforced = [each.decision for each in pending], [not each.slot.shadow for each in pending]
        try:
            self._insert(await charge(request, spend, partial(state.peek, message), decisions, enforced))
        except Outdated:
            return self._again
        except Exception as error:
            self._insert([self._pipeline.failure(each.slot, error) for each in pending])
        return self._finish

    def _insert(self, found: Sequence[Decision | None]) -> None:
        insert(found, self._pending, self._decisions)

    # --- answering ---

    def _finish(self) -> None:
        decisions = self._decisions
        answer = decisions[0] if len(decisions) == 1 else sent(decisions)
        if self._request.version is not None or (answer.action != PASS and not answer.stops):
            self._finally(self._confirm_and_settle(answer))
        else:
            self._answered(Answer(answer, decisions))

    async def _confirm_and_settle(self, answer: Decision) -> Callable[[], None]:
        """Confirm what the answer relies on, and settle it; return what to do next."""
        request, pipeline = self._request, self._pipeline
        try:
            version = request.version
            if version is not None and not await pipeline.state.confirm(version):
                return self._again
            if answer.action != PASS and not answer.stops:
                answer = await pipeline.settle(request, answer)
        except Exception as error:
            answer = pipeline.failure(pipeline.failing(request, answer), error)
        return partial(self._answered, Answer(answer, self._decisions))

    def _finally(self, work: Coroutine[Any, Any, Callable[[], None]]) -> None:
        """Do the work, then what it returns."""
        self._waiting = waiting = Deferred.fromCoroutine(work)
        waiting.addCallback(lambda what: what())


def _part(spent: Spent, begin: int, end: int) -> Spent:
    """Return the result for some of the charges."""
    decisive = spent.decisive - begin if spent.decisive >= 0 else -1
    return Spent(spent.outcome, decisive, spent.used[begin:end], spent.wait)


def _deferred(awaitable: Awaitable[Any]) -> Deferred[Any]:
    return Deferred.fromCoroutine(_waited(awaitable))


async def _waited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _ignore(_outcome: object) -> None:
    """Do nothing with an outcome that nobody waits for."""
