"""The notices part: mail to users and the administrator, and the webhook."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.threads import deferToThread

from chapps_tw.application import gauges
from chapps_tw.application.part import Part
from chapps_tw.config.settings import Settings
from chapps_tw.database.writable_book import WritableSqlBook
from chapps_tw.interfaces.history import History
from chapps_tw.interfaces.state import LiveState
from chapps_tw.observe.metrics import Metrics
from chapps_tw.policies.events import LimitEvent

if TYPE_CHECKING:
    # Its libraries are imported if notices are sent.
    from chapps_tw.notify.notifier import Notifier


class Notices(Part):
    """Sends notices, if any are configured.

    :ivar notifier: for the HTTP API; ``None`` if none are.
    :param observe: takes what is to be called with each event of a limit.
    :param note: keeps an event: its kind, its name, and the detail.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        metrics: Metrics,
        state: LiveState,
        book: WritableSqlBook,
        history: History,
        observe: Callable[[Callable[[LimitEvent], None]], None],
        note: Callable[[str, str, str], None],
    ) -> None:
        self.notifier: Notifier | None = None
        if not settings.notify.is_on:
            return
        from chapps_tw.notify.notifier import Notifier

        self.notifier = Notifier(settings, state, book, history, reactor, time.time, deferToThread, note)
        gauges.show_notices(metrics, self.notifier.counts)
        observe(self.notifier.note)

    def start(self) -> None:
        """Start sending."""
        if self.notifier:
            self.notifier.start()

    def stop(self) -> Awaitable[None] | None:
        """Stop sending. What was not taken stays in the outbox."""
        return self.notifier.stop() if self.notifier else None
