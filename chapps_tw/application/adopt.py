"""Moving over from CHAPPS 0.5: configuration, database and live state, as ``chapps-cli adopt`` does it."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from chapps_tw.adoption.live import MAX_LISTED, Live
from chapps_tw.adoption.source import Source
from chapps_tw.application import tables
from chapps_tw.application.start_errors import StartError
from chapps_tw.application.state import State
from chapps_tw.cli.session import CommandError
from chapps_tw.config.load import load
from chapps_tw.config.older import Older, differences, load_older
from chapps_tw.config.settings import ConfigError, PolicySection, Settings
from chapps_tw.config.write import write
from chapps_tw.database import copying
from chapps_tw.database.copying import OldBook
from chapps_tw.database.engine import database_url
from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.observe.metrics import Metrics
from chapps_tw.state.redis.pool import pool_from

T = TypeVar("T")

# Seconds for each command to a store, of which half are for a connection to be made.
_TIMEOUT: Final = 20.0


class Adoption:
    """A run of the command.

    :param source: the file of CHAPPS 0.5.
    :param target: the file of this version; it is written if it does not exist.
    :param added: as for :func:`~chapps_tw.config.load.load`.
    :param dry_run: change nothing, and report what would be done.
    :raises ConfigError: with all errors of both files.
    """

    def __init__(self, source: str, target: str, added: Sequence[type[PolicySection]], dry_run: bool) -> None:
        self._dry_run = dry_run
        self._target = target
        self._older: Older = load_older(source, added)
        self._exists = os.path.lexists(target)
        is_same = self._exists and os.path.realpath(source) == os.path.realpath(target)
        if is_same and self._older.assumed:
            raise ConfigError(
                [f"{source}: {each}: add this line, which CHAPPS 0.5 assumed" for each in self._older.assumed]
            )
        self._settings = load(target, os.environ, added=added) if self._exists else self._older.settings
        chapps = replace(self._older.settings.chapps, fold_case=self._settings.chapps.fold_case)
        self._source: Settings = replace(self._older.settings, chapps=chapps)

    def run(self, parts: Collection[str]) -> dict[str, Any]:
        """Do it; return the report of each part.

        :param parts: of ``configuration``, ``database`` and ``state``.
        :raises ConfigError: if the file cannot be written, or the URL of a database is invalid.
        :raises CommandError: if a database or a store cannot be used.
        :raises BookUnavailable, BookConflict: as :func:`~chapps_tw.database.copying.copy` does.
        """
        report: dict[str, Any] = {"dry_run": self._dry_run}
        for part, work in (
            ("configuration", self._configuration),
            ("database", self._database),
            ("state", self._state),
        ):
            if part in parts:
                report[part] = work()
        return report

    # --- configuration ---

    def _configuration(self) -> dict[str, Any]:
        older = self._older
        is_written = not self._exists and not self._dry_run
        if is_written:
            write(older.settings, self._target)
        return {
            "from": older.settings.path,
            "to": self._target,
            "written": is_written,
            "kept": self._exists,
            "without_effect": older.meaningless,
            "assumed": older.assumed,
            "to_decide": older.undecided,
            "differences": differences(older.settings, self._settings) if self._exists else [],
        }

    # --- database ---

    def _database(self) -> dict[str, Any]:
        old, new = _url(self._source), _url(self._settings)
        is_same = old == new
        with tables.using_database(self._source) as engine:
            book = copying.read(engine)
        report = {"from": str(old), "to": str(new), "in_place": is_same, **_survey(book)}
        if self._dry_run:
            return report
        report["done"] = tables.set_up(self._settings).splitlines()
        if not is_same:
            with tables.using_database(self._settings) as engine:
                copied = copying.copy(book, engine, self._settings.chapps.fold_case)
            report |= {"added": copied.added, "known": copied.known}
            report |= _listed("left_out", copied.left_out)
        return report

    # --- live state ---

    def _state(self) -> dict[str, Any]:
        try:
            found = _in_reactor(self._carry)
        except StateUnavailable as error:
            raise CommandError(f"{error} What was carried over stays, and a repetition completes it.") from None
        except StartError as error:
            raise CommandError(str(error)) from None
        return {"from": _place(self._source), "to": _place(self._settings), **asdict(found)}

    async def _carry(self, reactor: Any) -> Any:
        redis = pool_from(self._source.redis, self._source.redis_password, reactor, _TIMEOUT)
        state = None if self._dry_run else State(self._settings, reactor, Metrics("", time.monotonic), _TIMEOUT)
        redis.start()
        try:
            if state:
                state.open()
            taker: Any = state and state.live
            live = Live(Source(redis.call), self._settings, taker, time.time(), partial(_gently, reactor))
            return await live.carry()
        finally:
            await redis.stop()
            if state:
                await state.stop()


async def _gently(reactor: Any, call: Callable[[], Awaitable[T]]) -> T:
    """Await a call, and rest for as long as it took: a service that uses the same state gets its turn."""
    begin = reactor.seconds()
    result = await call()
    await deferLater(reactor, min(reactor.seconds() - begin, 1.0))
    return result


def adopt(
    source: str, target: str, added: Sequence[type[PolicySection]], parts: Collection[str], dry_run: bool
) -> dict[str, Any]:
    """Move over from CHAPPS 0.5, as :class:`Adoption` does. Raises what it does."""
    return Adoption(source, target, added, dry_run).run(parts)


def _in_reactor(work: Any) -> Any:
    """Run a coroutine in the reactor; return its result, or raise its exception.

    :raises CommandError: if it is interrupted.
    """
    results: list[Any] = []

    async def main(reactor: Any) -> None:
        try:
            results.append((await work(reactor), None))
        except Exception as error:
            results.append((None, error))

    # SystemExit is its way to return.
    with suppress(SystemExit):
        react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
    if not results:
        raise CommandError("interrupted: what was carried over stays, and a repetition completes it")
    result, error = results[0]
    if error:
        raise error
    return result


def _url(settings: Settings) -> Any:
    return database_url(settings.adapter, settings.db_password, settings.chapps.data_dir)


def _survey(book: OldBook) -> dict[str, Any]:
    found: dict[str, Any] = {kind: len(entries) for kind, entries in book.entries.items()}
    found["links"] = sum(map(len, book.links.values()))
    flags = [{"name": each.name, **each.fields} for each in book.flagged]
    return (
        found
        | _listed("domains_with_flags", flags)
        | _listed("users_without_quota", book.without_quota)
        | {"names": book.remarks}
    )


def _listed(name: str, items: Sequence[Any]) -> dict[str, Any]:
    """Return the first items, and how many there are."""
    return {name: list(items[:MAX_LISTED]), f"{name}_total": len(items)}


def _place(settings: Settings) -> str:
    """Return where the live state is."""
    redis = settings.redis
    if not settings.uses_redis:
        return settings.state_path
    if redis.sentinel_servers:
        return f"Redis {redis.sentinel_dataset} of the Sentinels {redis.sentinel_servers}"
    return f"Redis {redis.unix_socket or f'{redis.server}:{redis.port}'}"
