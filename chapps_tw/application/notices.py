"""The notices part: mail to users and the administrator, and the webhook."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

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

    log = Logger()

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
        self._settings = settings
        self._reactor = reactor
        self._metrics = metrics
        self._sources = state, book, history
        self._keep = note
        self._is_shown = False
        self._use(settings, self._make(settings))
        observe(self._note)

    def _make(self, settings: Settings) -> Notifier | None:
        if not settings.notify.is_on:
            return None
        from chapps_tw.notify.notifier import Notifier

        return Notifier(settings, *self._sources, self._reactor, time.time, deferToThread, self._keep)

    def _use(self, settings: Settings, notifier: Notifier | None) -> None:
        self._settings, self.notifier = settings, notifier
        if notifier and not self._is_shown:
            self._is_shown = True
            gauges.show_notices(self._metrics, lambda: self.notifier.counts if self.notifier else None)

    def _note(self, event: LimitEvent) -> None:
        if self.notifier:
            self.notifier.note(event)

    def prepare(self, settings: Settings) -> Callable[[], object]:
        # Templates may have changed, too.
        if _options(settings) == _options(self._settings) and not settings.notify.templates:
            return partial(self._use, settings, self.notifier)
        return partial(self._replace, settings, self._make(settings))

    def _replace(self, settings: Settings, notifier: Notifier | None) -> None:
        """Let another one send. What the former one did not put into the outbox yet is found in the live state."""
        before = self.notifier
        if before:
            ending = Deferred.fromCoroutine(before.stop())
            ending.addErrback(lambda failure: self.log.failure("The former notices did not end", failure))
            if notifier:
                notifier.counts.go_on(before.counts)
        self._use(settings, notifier)
        self.start()

    def start(self) -> None:
        """Start sending."""
        if self.notifier:
            self.notifier.start()

    def stop(self) -> Awaitable[None] | None:
        """Stop sending. What was not taken stays in the outbox."""
        return self.notifier.stop() if self.notifier else None


def _options(settings: Settings) -> tuple[object, ...]:
    """Return what notices depend on."""
    return settings.notify, settings.relay_password, settings.webhook_secret
