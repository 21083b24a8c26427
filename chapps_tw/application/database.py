"""The database part: engine, threads and the policy book."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from threading import Thread
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel

from chapps_tw.application.part import Part
from chapps_tw.application.start_errors import StartError, database_problem, database_refuses, open_engine
from chapps_tw.config.settings import Settings
from chapps_tw.database.invalidation import Cache, Each
from chapps_tw.database.schema import prepare
from chapps_tw.database.threads import Threads
from chapps_tw.database.writable_book import WritableSqlBook
from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.observe.metrics import Metrics

# Seconds that a start waits for the database server.
CHECK_SECONDS = 5.0

# Seconds between prunings of the audit trail.
PRUNE_SECONDS = 3600.0

# Maximum number of sentences about names that a start logs.
MAX_LOGGED = 20


class Database(Part):
    """The policy book.

    :ivar book: for policies and the HTTP API.
    :param timeout: seconds that a policy waits for the book.
    :param cache, each: as for :class:`~chapps_tw.database.writable_book.WritableSqlBook`.
    :raises StartError: see :func:`~chapps_tw.application.start_errors.open_engine`.
    :raises ConfigError: see there.
    """

    log = Logger()

    def __init__(
        self, settings: Settings, reactor: Any, metrics: Metrics, timeout: float, cache: Cache, each: Each
    ) -> None:
        self._settings = settings
        self.engine = open_engine(settings)
        size, timer = settings.adapter.pool_size, partial(metrics.timer, "database")
        self._threads = Threads(reactor, size)
        self.book = WritableSqlBook(
            self.engine, reactor, self._threads.run, size, timeout, timer=timer, cache=cache, each=each, now=time.time
        )

    def open(self) -> None:
        """Create or upgrade an SQLite file, or check the schema on a server.

        A server that is unavailable, hangs or rejects us does not prevent the start: cached values can be used
        meanwhile, and everything works as soon as the server does. If the server failed during a restart at night, a
        node that does not start would defer all mail, and systemd might have given up on it by the morning.
        """
        messages: list[str] = []
        problem = self._prepare(messages)
        if problem is None:
            self._log_messages(messages)
            return
        text = database_problem(self._settings, problem)
        is_unavailable = isinstance(problem, SQLAlchemyError | OSError | BookUnavailable)
        if not is_unavailable or self.engine.dialect.name == "sqlite":
            raise StartError(text)
        level = LogLevel.error if database_refuses(problem) else LogLevel.warn
        meanwhile = "until it can, only what is cached is answered; the schema was not checked"
        self.log.emit(level, "{text}; {meanwhile}", text=text, meanwhile=meanwhile)

    def _prepare(self, messages: list[str]) -> Exception | None:
        """Return why the database cannot be used, as far as this can be determined in time.

        :param messages: receives the messages to log.
        """
        checked: list[Exception | None] = []

        def check() -> None:
            try:
                prepare(self.engine, messages.append)
                checked.append(None)
            except Exception as error:
                checked.append(error)

        if self.engine.dialect.name == "sqlite":
            check()
        else:
            thread = Thread(target=check, name="schema check", daemon=True)
            thread.start()
            thread.join(CHECK_SECONDS)
        return checked[0] if checked else BookUnavailable(f"it did not answer in {CHECK_SECONDS:g} s")

    def _log_messages(self, messages: Sequence[str]) -> None:
        """Log the first messages of the set-up of the database."""
        for message in messages[:MAX_LOGGED]:
            self.log.warn("Database: {message}", message=message)
        if len(messages) > MAX_LOGGED:
            more = len(messages) - MAX_LOGGED
            self.log.warn("Database: {more} more messages are not shown: run 'chapps-cli admin db-setup'", more=more)

    def start(self) -> None:
        """Start the threads."""
        self._threads.start()

    def stop(self) -> None:
        """Stop the threads that do not hang."""
        self._threads.stop()


class Book(Part):
    """Completes pending invalidations, and prunes the audit trail; needs the state and the database.

    :param reactor: for timers.
    :param audit_days: days for which the audit trail is kept.
    """

    log = Logger()

    def __init__(self, book: WritableSqlBook, reactor: Any, audit_days: int) -> None:
        self._book = book
        self._audit_days = audit_days
        self._pruning = LoopingCall(self._prune)
        self._pruning.clock = reactor

    def start(self) -> None:
        """Begin with them."""
        self._book.start()
        self._pruning.start(PRUNE_SECONDS, now=False)

    def prepare(self, settings: Settings) -> Callable[[], object]:
        return partial(self._keep_for, settings.adapter.audit_days)

    def _keep_for(self, days: int) -> None:
        self._audit_days = days

    async def _prune(self) -> None:
        try:
            await self._book.prune_audit(86400.0 * self._audit_days)
        except BookUnavailable:
            # Another node, or the next time.
            return
        except Exception:
            # An exception would end the loop.
            self.log.failure("The audit trail was not pruned")

    def stop(self) -> Awaitable[None]:
        """Begin no more, and close the connections."""
        if self._pruning.running:
            self._pruning.stop()
        return self._book.stop()
