# mypy: allow-untyped-calls
"""The live feed: decisions as they are made, by server-sent events (https://html.spec.whatwg.org/#server-sent-events)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from chapps_tw.mail.decision import stops
from chapps_tw.observe.decision_ring import Search, SequencedRecord
from chapps_tw.rest.models.insight import DecisionFilter
from chapps_tw.rest.reading import validated
from chapps_tw.rest.routing import Refusal
from chapps_tw.rest.slices import Slices
from chapps_tw.security.tokens import Scope, TokenError
from chapps_tw.ui.views import Answer, Raw, Visit

EVENTS: Final = "text/event-stream; charset=utf-8"

MAX_STREAMS: Final = 50
"""Feeds at the same time, over all visitors."""

MAX_SHOWN: Final = 50
"""Decisions of one second that are shown; there may be thousands."""

BEFORE: Final = 10
"""Decisions before a feed begins that it shows if they fit."""

MAX_LOOKED_AT: Final = 5000
SECONDS: Final = 1.0

Find = Callable[[Mapping[str, str], int | None], Search]
Tell = Callable[[Mapping[str, Any], bool], str]


@implementer(IPushProducer)
class Stream:
    """One open feed.

    :ivar last: sequence number up to which decisions were shown.
    :ivar is_full: whether the browser does not keep up: meanwhile nothing is sent.
    """

    def __init__(self, visit: Visit, wanted: Mapping[str, str], only_stopped: bool, last: int) -> None:
        self.visit = visit
        self.wanted = wanted
        self.only_stopped = only_stopped
        self.last = last
        self.is_full = self.is_busy = False
        self.ended: Deferred[None] = Deferred()

    def pauseProducing(self) -> None:
        self.is_full = True

    def resumeProducing(self) -> None:
        self.is_full = False

    def stopProducing(self) -> None:
        self.end()

    def end(self) -> None:
        """End it, if it has not ended."""
        if not self.ended.called:
            self.ended.callback(None)

    def send(self, event: str, data: str) -> None:
        """Send an event."""
        lines = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
        self.visit.request.write(f"event: {event}\n{lines}\n".encode("utf-8", "replace"))


class Feed:
    """All feeds, served once a second.

    :param find: searches the decision ring; the user may be in any spelling.
    :param tell: returns a decision as markup; the second argument says whether the visitor may act on it.
    :param is_valid: whether the session of a visit still is.
    """

    log = Logger()

    def __init__(
        self, find: Find, tell: Tell, is_valid: Callable[[Visit], bool], slices: Slices, reactor: IReactorTime
    ) -> None:
        self._find = find
        self._tell = tell
        self._is_valid = is_valid
        self._slices = slices
        self._streams: list[Stream] = []
        # The markup of this second, by sequence number and whether the visitor may act: most feeds show the same.
        self._told: dict[tuple[int, bool], str] = {}
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor

    async def view(self, visit: Visit) -> Answer:
        """Send decisions until the browser leaves."""
        if len(self._streams) >= MAX_STREAMS:
            raise Refusal(503, "Too many feeds at once.")
        wanted = _wanted(visit)
        stream = Stream(visit, wanted, bool(visit.query["stopped"]), self._find(wanted, None).last_sequence - BEFORE)
        request: Any = visit.request
        request.setHeader("Content-Type", EVENTS)
        # For nginx, which would otherwise wait for more.
        request.setHeader("X-Accel-Buffering", "no")
        request.registerProducer(stream, True)
        self._streams.append(stream)
        self._begin(stream)
        if not self._ticking.running:
            self._ticking.start(SECONDS, now=False)
        try:
            await stream.ended
            request.unregisterProducer()
        except CancelledError:
            # The browser has left.
            stream.end()
        finally:
            self._streams.remove(stream)
        return Raw(b"", EVENTS)

    def stop(self) -> None:
        """End all feeds."""
        if self._ticking.running:
            self._ticking.stop()
        for stream in list(self._streams):
            stream.end()

    def _tick(self) -> None:
        self._told.clear()
        if not self._streams:
            self._ticking.stop()
        for stream in list(self._streams):
            if not self._lives(stream):
                stream.end()
            elif not stream.is_full and not stream.is_busy:
                self._begin(stream)

    def _begin(self, stream: Stream) -> None:
        """Begin to send what is new."""
        stream.is_busy = True
        Deferred.fromCoroutine(self._serve(stream)).addErrback(self._failed, stream)

    def _lives(self, stream: Stream) -> bool:
        try:
            return self._is_valid(stream.visit)
        except TokenError:
            return False

    def _failed(self, failure: Any, stream: Stream) -> None:
        self.log.failure("A feed failed", failure)
        stream.end()

    async def _serve(self, stream: Stream) -> None:
        search = self._find(stream.wanted, None)
        new = max(0, search.last_sequence - stream.last)
        looked_at = min(new, MAX_LOOKED_AT)
        found = await self._slices.collect(self._markup(stream, islice(search.records, looked_at)), MAX_SHOWN)
        stream.last, stream.is_busy = search.last_sequence, False
        if stream.ended.called:
            return
        # Also if there is none: a connection on which nothing is sent may be cut.
        more = new - len(found) if len(found) == MAX_SHOWN else 0
        stream.send("decisions", f"{more}\n" + "".join(found))

    def _markup(self, stream: Stream, records: Iterator[SequencedRecord | None]) -> Iterator[str | None]:
        may_act = stream.visit.may(Scope.OPERATOR)
        for each in records:
            if each is None or (stream.only_stopped and not stops(each.record.action)):
                yield None
            else:
                yield self._markup_of(each, may_act)

    def _markup_of(self, each: SequencedRecord, may_act: bool) -> str:
        key = each.sequence, may_act
        if key not in self._told:
            self._told[key] = self._tell(each.record.as_dict(), may_act)
        return self._told[key]


def _wanted(visit: Visit) -> dict[str, str]:
    """Return the filter of a feed. Raises :class:`Refusal` 422."""
    field, value = visit.query["field"], visit.query["value"]
    if not value or field not in ("user", "sender", "recipient", "client"):
        return {}
    return {field: getattr(validated(DecisionFilter, {field: value}), field)}
