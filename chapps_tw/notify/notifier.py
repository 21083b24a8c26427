"""All that sends notices on this node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.defer import TimeoutError as TooLate

from chapps_tw.config.notify_checks import webhook_key
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.history import History
from chapps_tw.interfaces.state import LiveState
from chapps_tw.interfaces.writable_book import WritableBook
from chapps_tw.notify.counts import Counts
from chapps_tw.notify.delivery import Delivery, Send
from chapps_tw.notify.facts import Facts
from chapps_tw.notify.intake import Intake
from chapps_tw.notify.notice import TEST, Channel, kinds_of, notice
from chapps_tw.notify.outbox import Database, Outbox
from chapps_tw.notify.report import Report
from chapps_tw.notify.senders import MAILS, POSTS, Mailer, Poster
from chapps_tw.notify.smtp import Relay
from chapps_tw.notify.webhook import Webhook

# Seconds that a stop waits for what is being sent. What was not recorded by then is sent again.
_STOP: Final = 2.0


class Book(Database, WritableBook, Protocol):
    """What the outbox and the report need."""


class Notifier:
    """Sends notices (:class:`~chapps_tw.interfaces.notify.Notifier`).

    :ivar counts: numbers of notices.
    :ivar note: tells an event that this node was the first to note. Never waits, never raises.
    :param in_thread: runs a function in a thread.
    :param now: epoch seconds.
    :param note: keeps an event: its kind, its name, and the detail.
    """

    def __init__(
        self,
        settings: Settings,
        state: LiveState,
        book: Book,
        history: History,
        reactor: Any,
        now: Callable[[], float],
        in_thread: Callable[..., Awaitable[Any]],
        note: Callable[[str, str, str], None],
    ) -> None:
        options = settings.notify
        self.counts = Counts(kinds_of(settings.notify))
        self._reactor = reactor
        self._now = now
        self._senders = _senders(settings, state, book, history, reactor, now, in_thread)
        outbox = Outbox(book, float(options.give_up_after.seconds), options.collect_for)
        self._deliveries = [
            Delivery(channel, outbox, send, count, self.counts, options.retry_after, reactor, now)
            for channel, (send, count) in self._senders.items()
        ]
        intake = Intake(
            options, state, outbox, self.counts, self._added, reactor, now, in_thread, book.events, note
        )  # fmt: skip
        self.note = intake.note
        self._loops = [intake.loop, *(each.loop for each in self._deliveries)]

    def start(self) -> None:
        """Start sending."""
        for loop in self._loops:
            loop.start()

    async def stop(self) -> None:
        """Stop sending. What is being sent gets a short time to be taken."""
        ends = [Deferred.fromCoroutine(loop.stop()) for loop in self._loops]
        try:
            await DeferredList(ends, consumeErrors=True).addTimeout(_STOP, self._reactor)
        except TooLate:
            return

    async def test(self) -> Mapping[str, str]:
        """See :meth:`chapps_tw.interfaces.notify.Notifier.test`."""
        found = {}
        for channel, (send, _) in self._senders.items():
            if channel is not Channel.USER:
                now = self._now()
                [outcome] = await send([notice(channel, TEST, {"at": now}, now)])
                found[str(channel)] = outcome.problem
        return found

    def _added(self) -> None:
        for each in self._deliveries:
            each.loop.wake()


def _senders(
    settings: Settings,
    state: LiveState,
    book: Book,
    history: History,
    reactor: Any,
    now: Callable[[], float],
    in_thread: Callable[..., Awaitable[Any]],
) -> Mapping[Channel, tuple[Send, int]]:
    """Return, for each channel that is configured, what sends its notices, and how many at a time."""
    options, node = settings.notify, settings.node
    facts = Facts(options, state, node)
    found: dict[Channel, tuple[Send, int]] = {}
    if options.from_address:
        relay = Relay(options, settings.relay_password, node, reactor)
        mailer = Mailer(options, facts, Report(state, book, history, node), relay, in_thread, now)
        found[Channel.USER] = mailer.send, MAILS
        if options.admin_address:
            found[Channel.ADMIN] = mailer.send, MAILS
    if options.webhook:
        webhook = Webhook(options.webhook, webhook_key(settings.webhook_secret), reactor, now)
        found[Channel.WEBHOOK] = Poster(facts, webhook).send, POSTS
    return found
