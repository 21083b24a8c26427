"""Takes notices of a channel from the outbox, and sends them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from twisted.logger import Logger

from chapps_tw.notify.counts import Counts
from chapps_tw.notify.loop import Loop
from chapps_tw.notify.notice import Channel, Notice, Outcome
from chapps_tw.notify.outbox import Outbox
from chapps_tw.observe.log_limit import LogLimit

# The longest pause before another attempt: at one notice, and at all of them while none is taken. In seconds.
_MOST_APART: Final = 1800.0
_MOST_AWAY: Final = 60.0
# Seconds after which a lease is left alone.
_LATE: Final = 10.0
# Between two looks for notices of other nodes.
_POLL: Final = 10.0

Send = Callable[[Sequence[Notice]], Awaitable[Sequence[Outcome]]]
"""Sends notices; returns the outcome for each, in order."""


class Delivery:
    """Sends the notices of a channel, some at a time.

    :ivar loop: its work.
    :param count: how many are sent at a time; that takes much less time than a lease.
    :param retry_after: seconds until a second attempt.
    :param now: epoch seconds.
    """

    _log = Logger()

    def __init__(
        self,
        channel: Channel,
        outbox: Outbox,
        send: Send,
        count: int,
        counts: Counts,
        retry_after: float,
        reactor: Any,
        now: Callable[[], float],
    ) -> None:
        self.loop = Loop(reactor, self._turn)
        self._channel = channel
        self._outbox = outbox
        self._send = send
        self._count = count
        self._counts = counts
        self._retry_after = retry_after
        self._monotonic = reactor.seconds
        self._now = now
        self._refused = LogLimit(self._log.warn, reactor.seconds)
        self._dropped = LogLimit(self._log.warn, reactor.seconds)
        # While none is taken.
        self._problem = ""
        self._pause = 0.0
        self._not_before = float("-inf")
        # What was sent or dropped, and what has failed, and is not recorded yet.
        self._ended: list[Notice] = []
        self._failed: dict[Notice, float] = {}

    async def _turn(self) -> float:
        if self._ended or self._failed:
            await self._record()
        left: float = self._not_before - self._monotonic()
        if left > 0:
            return left
        asked = self._monotonic()
        notices = await self._outbox.lease(self._channel, self._now(), self._count)
        if not notices:
            return min(_POLL, self._retry_after)
        if self._monotonic() - asked > _LATE:
            # Another node may have leased them by the time that they are sent.
            return 0.0
        outcomes = await self._attempt(notices)
        for notice, outcome in zip(notices, outcomes, strict=True):
            self._note(notice, outcome)
        self._follow([each.problem for each in outcomes if not each.is_final])
        await self._record()
        return self._pause

    async def _attempt(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
        try:
            return await self._send(notices)
        except Exception as error:
            self._log.failure("Notices to {channel} failed", channel=self._channel)
            return [Outcome(type(error).__name__)] * len(notices)

    async def _record(self) -> None:
        await self._outbox.settle(self._ended, self._failed)
        self._ended, self._failed = [], {}

    def _note(self, notice: Notice, outcome: Outcome) -> None:
        if not outcome.problem:
            self._ended.append(notice)
            self._counts.sent[notice.channel, notice.kind] += 1
        elif outcome.is_final:
            self._ended.append(notice)
            self._counts.failed[notice.channel, notice.kind] += 1
            words = "A notice to {channel} was refused, and is dropped: {problem}"
            self._dropped.warn(words, channel=self._channel, problem=outcome.problem)
        else:
            pause = min(_MOST_APART, self._retry_after * 2.0 ** min(20, notice.attempts - 1))
            self._failed[notice] = self._now() + pause

    def _follow(self, problems: Sequence[str]) -> None:
        """Pause while nothing is taken, and log what is not.

        :param problems: of all but those that were refused for good: a relay that refuses is there.
        """
        failed = [problem for problem in problems if problem]
        if len(failed) < len(problems) or not problems:
            if self._problem:
                self._log.info("Notices to {channel} are sent again", channel=self._channel)
            self._problem, self._pause = "", 0.0
            for problem in failed:
                words = "A notice to {channel} was not taken, and is tried again: {problem}"
                self._refused.warn(words, channel=self._channel, problem=problem)
            return
        if not self._problem:
            words = "Notices to {channel} cannot be sent: {problem}; they wait, and are tried again"
            self._log.warn(words, channel=self._channel, problem=failed[0])
        self._problem = failed[0]
        self._pause = min(_MOST_AWAY, max(self._retry_after / 4, 2 * self._pause))
        self._not_before = self._monotonic() + self._pause
