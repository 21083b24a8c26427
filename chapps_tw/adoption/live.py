"""Carrying the live state of CHAPPS 0.5 over: attempts, greylisted tuples and tallies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar
from zlib import crc32

from chapps_tw.adoption.keys import Key, Kind, parse
from chapps_tw.adoption.source import Source, together
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.adoption import AdoptingState, PastCounts, PastMessage, PastTally, PastTuple
from chapps_tw.interfaces.state import Unit
from chapps_tw.mail.addresses import normal_name
from chapps_tw.outbound import decode_xtext
from chapps_tw.policies.greylisting import rules
from chapps_tw.policies.inbound import client_network, mail_address
from chapps_tw.policies.limits import Level, LimitResolver

T = TypeVar("T")

DAY: Final = 86400.0
"""Seconds for which CHAPPS 0.5 counts attempts, and keeps tuples and tallies. They cannot be configured there."""

MAX_LISTED: Final = 100
"""Keys that a report lists, of each kind."""

# Messages, tuples or tallies that are adopted in one transaction: a few milliseconds.
_BATCH: Final = 200

# Users whose attempts are read at once.
_AT_ONCE: Final = 50


@dataclass
class LiveReport:
    """What was found, and carried over.

    :ivar found: keys by kind.
    :ivar transmissions: what the attempts count.
    :ivar added: what was not there before: messages, tuples, and messages in tallies.
    :ivar respelled: users whose name was written differently, by key; at most :data:`MAX_LISTED`.
    :ivar unreadable: keys with the reason; at most :data:`MAX_LISTED`.
    """

    found: dict[str, int] = field(default_factory=lambda: {kind.value: 0 for kind in Kind})
    transmissions: int = 0
    added: dict[str, int] = field(default_factory=lambda: {"counts": 0, "tuples": 0, "tallies": 0})
    respelled_total: int = 0
    respelled: list[str] = field(default_factory=list)
    unreadable_total: int = 0
    unreadable: list[dict[str, str]] = field(default_factory=list)

    def cannot_read(self, raw: bytes, why: str) -> None:
        """Note a key that cannot be read."""
        self.unreadable_total += 1
        if len(self.unreadable) < MAX_LISTED:
            self.unreadable.append({"key": raw.decode("utf-8", "backslashreplace"), "why": why})

    def respell(self, name: str) -> None:
        """Note a user whose name is written differently."""
        self.respelled_total += 1
        if len(self.respelled) < MAX_LISTED:
            self.respelled.append(name)


class Live:
    """Carries the live state over.

    :param settings: of this service.
    :param state: that takes it; ``None`` only counts.
    :param now: epoch seconds of the begin.
    :param gently: makes a call to the state so that a service that uses it gets its turn, too.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        state: AdoptingState | None,
        now: float,
        gently: Callable[[Callable[[], Awaitable[int]]], Awaitable[int]],
    ) -> None:
        self.report = LiveReport()
        self._source = source
        self._settings = settings
        self._state = state
        self._now = now
        self._gently = gently
        self._resolver = LimitResolver(settings.oqp)
        self._rules = rules(settings)
        self._pending: list[PastCounts] = []
        self._pending_messages = 0

    async def carry(self) -> LiveReport:
        """Carry everything over.

        :raises StateUnavailable: if one of the stores is unavailable. What was carried over stays; a repetition
            completes it.
        """
        async for page in self._source.pages():
            keys = list(self._parsed(page))
            await self._tuples([key for key in keys if key.kind is Kind.TUPLE])
            await self._tallies(await self._sorted_sets(keys, Kind.TALLY))
            counted = await self._sorted_sets(keys, Kind.COUNTS)
            for start in range(0, len(counted), _AT_ONCE):
                await together([self._counts(key) for key in counted[start : start + _AT_ONCE]])
            await self._adopt_pending()
        return self.report

    def _parsed(self, page: Sequence[bytes]) -> Iterator[Key]:
        for raw in page:
            try:
                key = parse(raw)
            except ValueError as error:
                self.report.cannot_read(raw, str(error))
            else:
                self.report.found[key.kind] += 1
                yield key

    async def _sorted_sets(self, keys: Sequence[Key], kind: Kind) -> list[Key]:
        wanted = [key for key in keys if key.kind is kind]
        are = await self._source.are_sorted_sets([key.raw for key in wanted])
        for key, is_one in zip(wanted, are, strict=True):
            if not is_one:
                self.report.found[kind] -= 1
                self.report.cannot_read(key.raw, "is not a sorted set, or has expired meanwhile")
        return [key for key, is_one in zip(wanted, are, strict=True) if is_one]

    # --- counts ---

    async def _counts(self, key: Key) -> None:
        options = self._settings.oqp
        [name] = key.parts
        user = self._user(name)
        suffix = ""
        if user != name:
            self.report.respell(name)
            # Attempts of two spellings at the same time are two messages.
            suffix = f":{crc32(key.raw):08x}"
        account, unit = self._resolver.accounts(Level.USER, user)[0]
        async for attempts in self._source.attempts(key.raw, self._now - options.interval):
            messages = [
                PastMessage(f"chapps-0.5:{at!r}{suffix}", at, number if unit is Unit.RECIPIENTS else 1)
                for at, number in attempts
            ]
            self.report.transmissions += sum(message.amount for message in messages)
            for batch in _batches(messages):
                self._pending.append(PastCounts(account, options.interval, batch))
                self._pending_messages += len(batch)
                if self._pending_messages >= _BATCH:
                    await self._adopt_pending()

    async def _adopt_pending(self) -> None:
        pending, self._pending, self._pending_messages = self._pending, [], 0
        if self._state is not None and pending:
            await self._adopt(Kind.COUNTS, partial(self._state.adopt_counts, pending))

    def _user(self, name: str) -> str:
        chapps = self._settings.chapps
        return normal_name(decode_xtext(name) if chapps.user_key == "ccert_subject" else name, chapps.fold_case)

    # --- greylisting ---

    async def _tuples(self, keys: Sequence[Key]) -> None:
        texts = await self._source.strings([key.raw for key in keys])
        tuples = []
        for key, text in zip(keys, texts, strict=True):
            try:
                at = float(text or b"")
            except ValueError:
                self.report.found[Kind.TUPLE] -= 1
                self.report.cannot_read(key.raw, "is not a time, or has expired meanwhile")
                continue
            client, sender, recipient = key.parts
            tuples.append(PastTuple(self._client(client), mail_address(sender), mail_address(recipient), at))
        for batch in _batches(tuples):
            if self._state is not None:
                await self._adopt(Kind.TUPLE, partial(self._state.adopt_tuples, batch, self._rules))

    async def _tallies(self, keys: Sequence[Key]) -> None:
        if not self._rules.threshold:
            return
        found = await self._source.tallies([key.raw for key in keys], self._now - DAY)
        tallies = [
            PastTally(self._client(key.parts[0]), [(name.decode("utf-8", "replace"), at) for name, at in messages])
            for key, messages in zip(keys, found, strict=True)
            if messages
        ]
        for batch in _batches(tallies):
            if self._state is not None:
                await self._adopt(Kind.TALLY, partial(self._state.adopt_tallies, batch, self._rules))

    def _client(self, address: str) -> str:
        return client_network(address, self._settings.grl.ipv4_prefix, self._settings.grl.ipv6_prefix)

    async def _adopt(self, kind: Kind, adopt: Callable[[], Awaitable[int]]) -> None:
        added = await self._gently(adopt)
        self.report.added[kind] += added


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
