"""A policy book for tests, on each of the three kinds of database."""

from __future__ import annotations

import atexit
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, delete, event
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from chapps_tw.config.settings import PolicyConfigAdapter
from chapps_tw.database import schema
from chapps_tw.database.engine import make_engine
from chapps_tw.database.invalidation import Cache
from chapps_tw.database.models import metadata
from chapps_tw.database.stale_keys import union
from chapps_tw.database.threads import Threads
from chapps_tw.database.writable_book import WritableSqlBook
from chapps_tw.interfaces.book import BookUnavailable, Create, Delete, Edit, Entry, Fields, Links, StaleKeys
from chapps_tw.interfaces.writable_book import Changed
from chapps_tw.rest.slices import Slices
from tests.support.servers.common import HANGS
from tests.support.servers.sql import MariaDB, PostgreSQL

CLOCK: Any = reactor

T = TypeVar("T")

# Generous deadlines in seconds, for tests that do not test them: of lookups, and of bulk queries.
DEADLINES = 30.0, 60.0


@cache
def shared(kind: type[PostgreSQL] | type[MariaDB]) -> PostgreSQL | MariaDB:
    """Return the server that all tests of this run share, except those that stop theirs."""
    server = kind()
    atexit.register(server.stop)
    server.start()
    return server


class OnSqlite:
    """New databases are files."""

    @classmethod
    def new_database(cls) -> PolicyConfigAdapter:
        directory = tempfile.TemporaryDirectory(prefix="book-")
        atexit.register(directory.cleanup)
        return PolicyConfigAdapter(db_name=str(Path(directory.name, "book.sqlite3")))


class OnPostgreSQL:
    """New databases are on a server, connected to over TCP."""

    @classmethod
    def new_database(cls) -> PolicyConfigAdapter:
        server = shared(PostgreSQL)
        return server.adapter(server.new_database())


class OnMariaDB:
    """New databases are on a server, connected to over TCP."""

    @classmethod
    def new_database(cls) -> PolicyConfigAdapter:
        server = shared(MariaDB)
        return server.adapter(server.new_database())


def engine_for(adapter: PolicyConfigAdapter) -> Engine:
    return make_engine(adapter, "secret", "/nowhere")


def patient_engine(adapter: PolicyConfigAdapter) -> Engine:
    """Return an engine with a generous timeout for connecting, for tests that do not test it."""
    engine = engine_for(adapter)

    @event.listens_for(engine, "do_connect")
    def wait(_dialect: Any, _record: Any, _positional: Any, options: dict[str, Any]) -> None:
        if "connect_timeout" in options:
            options["connect_timeout"] = int(DEADLINES[0])

    return engine


def working(threads: Threads) -> int:
    """Return the number of busy threads plus queued calls."""
    found = threads._pool._team.statistics()
    return int(found.busyWorkerCount + found.backloggedWorkCount)


async def once_available(ask: Callable[[], Awaitable[T]], seconds: float = HANGS) -> T:
    """Retry until the book is available; return the result."""
    end = CLOCK.seconds() + seconds
    while True:
        try:
            return await ask()
        except BookUnavailable:
            if CLOCK.seconds() > end:
                raise
        await deferLater(CLOCK, 0.02)


class RecordingCache:
    """A fake of the state store that records what is invalidated."""

    def __init__(self) -> None:
        self._batches: list[StaleKeys] = []

    async def ping(self) -> None:
        pass

    async def invalidate(self, stale: StaleKeys) -> None:
        self._batches.append(stale)

    def take(self) -> StaleKeys:
        """Return what was invalidated since the last call."""
        found, self._batches = union(*self._batches), []
        return found


def book_on(
    engine: Engine,
    threads: Threads,
    deadline: float,
    bulk_deadline: float = 10.0,
    *,
    size: int,
    reactor: Any = CLOCK,
    cache: Cache | None = None,
) -> WritableSqlBook:
    """Return a book that is not started: it invalidates at once, but leaves its rows in the outbox."""
    cache = cache or RecordingCache()
    each = Slices(CLOCK).each
    return WritableSqlBook(
        engine, reactor, threads.run, size, deadline, bulk_deadline, cache=cache, each=each, now=time.time
    )


class Statements:
    """Records the statements of an engine that begin with a word."""

    def __init__(self, engine: Engine, word: str = "SELECT") -> None:
        self.seen: list[str] = []
        self._word = word
        event.listen(engine, "before_cursor_execute", self._see)

    def _see(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(self._word):
            self.seen.append(statement)


@implementer(ILogObserver)
class Log:
    """Records what is logged about the database from now on."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self)

    def __call__(self, event: Any) -> None:
        if "database" in event.get("log_namespace", ""):
            assert "log_failure" not in event
            self.lines.append(event["log_format"].format(**event))

    def stop(self) -> None:
        globalLogPublisher.removeObserver(self)


class BookCase(TestCase):
    """A test with an empty :attr:`book` and its :attr:`engine`. Mix in one of the classes above."""

    adapter: PolicyConfigAdapter

    @classmethod
    def new_database(cls) -> PolicyConfigAdapter:
        raise NotImplementedError

    @classmethod
    def setUpClass(cls) -> None:
        cls.adapter = cls.new_database()
        engine = patient_engine(cls.adapter)
        schema.upgrade(engine)
        engine.dispose()

    def setUp(self) -> None:
        self.engine = patient_engine(self.adapter)
        with self.engine.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(delete(table))
        self.engine.dispose()
        self.threads = Threads(CLOCK, self.adapter.pool_size)
        self.threads.start()
        self.addCleanup(self.threads.stop)
        self.cache = RecordingCache()
        self.book = book_on(self.engine, self.threads, *DEADLINES, size=self.adapter.pool_size, cache=self.cache)
        self.addCleanup(self.book.stop)

    async def create(self, kind: str, fields: Fields, links: Links | None = None) -> Entry:
        entry: Entry = (await self.changed(Create(kind, fields, links or {})))[0]
        return entry

    async def changed(self, edit: Edit) -> tuple[Any, StaleKeys]:
        """Apply a change without concurrent ones; return its entry, and what was invalidated."""
        self.cache.take()
        changed = await self.book.change(edit)
        stale = self.cache.take()
        if not isinstance(edit, Delete):
            self.assertEqual(changed.users, 0)
        self.assertEqual(changed, Changed(changed.entry, changed.users, False, bool(stale.unlisted)))
        return changed.entry, stale

    async def user(self, name: str, **links: list[int]) -> int:
        return (await self.create("users", {"name": name}, links)).id

    async def domain(self, name: str, **flags: bool) -> int:
        return (await self.create("domains", {"name": name, **flags})).id

    async def email(self, name: str) -> int:
        return (await self.create("emails", {"name": name})).id

    async def quota(self, name: str, number: int) -> int:
        return (await self.create("quotas", {"name": name, "quota": number})).id
