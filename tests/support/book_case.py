"""A policy book for a test, on each of the three kinds of database."""

from __future__ import annotations

import atexit
import tempfile
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
from chapps_tw.database.keeper import Keeper
from chapps_tw.database.models import metadata
from chapps_tw.database.threads import Threads
from chapps_tw.interfaces.book import BookUnavailable
from tests.support.servers.common import HANGS
from tests.support.servers.sql import MariaDB, PostgreSQL

CLOCK: Any = reactor

T = TypeVar("T")

# Seconds that an answer of the database may take, where it is not what is looked at: of one entry, and of others.
PATIENCE = 30.0, 60.0


@cache
def shared(kind: type[PostgreSQL] | type[MariaDB]) -> PostgreSQL | MariaDB:
    """The server that all tests of this run use, save those that stop theirs."""
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
    """New databases are those of a server that is reached by TCP."""

    @classmethod
    def new_database(cls) -> PolicyConfigAdapter:
        server = shared(PostgreSQL)
        return server.adapter(server.new_database())


class OnMariaDB:
    """New databases are those of a server that is reached by TCP."""

    @classmethod
    def new_database(cls) -> PolicyConfigAdapter:
        server = shared(MariaDB)
        return server.adapter(server.new_database())


def engine_for(adapter: PolicyConfigAdapter) -> Engine:
    return make_engine(adapter, "secret", "/nowhere")


def patient_engine(adapter: PolicyConfigAdapter) -> Engine:
    """One whose connections may take their time, where that is not what is looked at."""
    engine = engine_for(adapter)

    @event.listens_for(engine, "do_connect")
    def wait(_dialect: Any, _record: Any, _positional: Any, options: dict[str, Any]) -> None:
        if "connect_timeout" in options:
            options["connect_timeout"] = int(PATIENCE[0])

    return engine


def working(threads: Threads) -> int:
    """How many of the threads have something to do, and what waits for one."""
    found = threads._pool._team.statistics()
    return int(found.busyWorkerCount + found.backloggedWorkCount)


async def once_available(ask: Callable[[], Awaitable[T]], seconds: float = HANGS) -> T:
    """Ask until there is an answer, which is returned."""
    end = CLOCK.seconds() + seconds
    while True:
        try:
            return await ask()
        except BookUnavailable:
            if CLOCK.seconds() > end:
                raise
        await deferLater(CLOCK, 0.02)


class Statements:
    """Counts the statements of an engine that begin with a word."""

    def __init__(self, engine: Engine, word: str = "SELECT") -> None:
        self.seen: list[str] = []
        self._word = word
        event.listen(engine, "before_cursor_execute", self._see)

    def _see(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(self._word):
            self.seen.append(statement)


@implementer(ILogObserver)
class Log:
    """What is logged about the database from now on."""

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
    """A test with an empty book, as :attr:`book`, and its :attr:`engine`. Mix in one of the above."""

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
        self.book = Keeper(self.engine, CLOCK, self.threads.run, self.adapter.pool_size, *PATIENCE)
        self.addCleanup(self.book.stop)

    async def user(self, name: str, **links: list[int]) -> int:
        return (await self.book.create("users", {"name": name}, links))[0].id

    async def domain(self, name: str, **flags: bool) -> int:
        return (await self.book.create("domains", {"name": name, **flags}, {}))[0].id

    async def email(self, name: str) -> int:
        return (await self.book.create("emails", {"name": name}, {}))[0].id

    async def quota(self, name: str, number: int) -> int:
        return (await self.book.create("quotas", {"name": name, "quota": number}, {}))[0].id
