"""Live state in Redis, with one Lua script for each operation that changes something.

Keys are ``PREFIX:SPACE:{name}...`` of accounts (``oqp`` for users), ``PREFIX:SPACE:{owner}:name`` of cached values,
``PREFIX:grl:{grl}:...``, ``PREFIX:SPACE:{name}`` of what happens once, and ``PREFIX:events``. A script may use keys of
several hash tags (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/): there is one master.
"""

from __future__ import annotations

from binascii import b2a_hex
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from os import urandom
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from chapps_tw.interfaces.adoption import PastCounts, PastTally, PastTuple
from chapps_tw.interfaces.greylist import Fill, GreylistAttempt, GreylistResult, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import CachedValue, CacheVersion, Charge, Fresh, Message, Spent, Usage, ValueKey, Window
from chapps_tw.state.redis.charges import Charges
from chapps_tw.state.redis.connection import Decode, unchanged
from chapps_tw.state.redis.names import as_bytes, hash_tag, key_name, microseconds, milliseconds
from chapps_tw.state.redis.pool import RedisPool
from chapps_tw.state.redis.script import Script, Shape, strings
from chapps_tw.state.redis.values import Values
from chapps_tw.state.reply import StoreReply

EVENTS = 1000
"""Maximum number of events."""

EVENTS_TTL = 366 * 86400.0
"""Seconds that events are kept after the last one."""

_BATCH = 500
_OUTCOMES = tuple(Outcome(number) for number in range(len(Outcome)))


class RedisState:
    """:class:`~chapps_tw.interfaces.state.LiveState` in Redis.

    :param prefix: of all keys.
    :param now: returns epoch seconds, instead of the server's clock; for tests.
    :param local: returns epoch seconds by the clock of this machine, which is to notice that clocks were set back;
        by default ``now``, or the reactor's clock.
    """

    def __init__(
        self,
        pool: RedisPool,
        prefix: str,
        now: Callable[[], float] | None = None,
        local: Callable[[], float] | None = None,
    ) -> None:
        self._pool = pool
        self._now = now
        self._local = local or now or pool.reactor.seconds
        self._prefix = hash_tag(prefix)
        self._grl = self._prefix + b":grl:{grl}:"
        self._events = self._prefix + b":events"
        self._unique, self._number = b2a_hex(urandom(12)), count()
        self._greylist_rules: tuple[GreylistRules, bytes] | None = None
        self._load()

    def _load(self) -> None:
        self._check = lru_cache(64)(Script("version", "copy", "greylist").shape)
        self._drop_copy = Script("drop_copy").shape(1, 1)
        self._pass_greylist = Script("pass_greylist").shape(1, 2)
        self._tally = Script("tally").shape(1, 0)
        self._forget = Script("forget").shape(1, 0)
        self._first_time = Script("first_time").shape(1, 1)
        self._adopt_tuple, self._adopt_tally = Script("adopt_tuple").shape(1, 4), Script("adopt_tally")
        self._note_event = Script("note_event").shape(2, 4)
        self._announce = Script("announce").shape(1, 3)
        self._values = Values(self._run, self._prefix, self._unique_token, self._local)
        self._charges = Charges(
            self._run_fast, self._aside, self._prefix, self._unique_token, self._values.version_key, self._outdated
        )

    def _outdated(self) -> None:
        self._values.memory.set_stamp(b"")

    # --- counting ---

    def spend(
        self, message: Message, charges: Sequence[Charge], version: CacheVersion | None = None
    ) -> StoreReply[Spent]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._charges.spend(message, charges, version, False)

    def peek(self, message: Message, charges: Sequence[Charge]) -> StoreReply[Spent]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._charges.spend(message, charges, None, True)

    async def usage(self, windows: Sequence[Window]) -> list[Usage]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return await self._charges.usage(windows)

    async def reset(self, windows: Sequence[Window]) -> list[int]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return await self._charges.reset(windows)

    # --- cached values ---

    def values(self, keys: Sequence[ValueKey]) -> Deferred[list[CachedValue]]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._values.find(keys)

    def version(self) -> CacheVersion:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._values.memory.version()

    def recall(self, key: ValueKey) -> str | None:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._values.memory.recall(key)

    def confirm(self, version: CacheVersion) -> Deferred[bool]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._values.confirm(version)

    async def keep_values(self, values: Sequence[Fresh], ttl: float) -> None:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        await self._values.keep(values, ttl)

    async def drop_values(self, keys: Sequence[ValueKey]) -> list[str | None]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return await self._values.drop(keys)

    # --- events ---

    async def note_event(self, name: str, ttl: float, event: str) -> bool:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        key = self._events + b":" + hash_tag(name)
        body = strings(key, self._events, milliseconds(ttl), as_bytes(event), b"%d" % EVENTS, milliseconds(EVENTS_TTL))
        return bool(await self._run(self._note_event, body))

    async def events(self, count: int) -> list[str]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        if count <= 0:
            return []
        found: list[bytes] = await self._pool.call(b"LRANGE", self._events, b"0", b"%d" % (min(count, EVENTS) - 1))
        return [each.decode("utf-8", "surrogatepass") for each in found]

    async def announce(self, name: str, text: str, ttl: float) -> list[str]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        body = strings(self._prefix + b":nodes", as_bytes(name), as_bytes(text), b"%d" % round(ttl * 1e3))
        found: list[bytes] = await self._run(self._announce, body)
        return [each.decode("utf-8", "surrogatepass") for each in found]

    # --- greylisting ---

    def check_greylist(
        self,
        attempt: GreylistAttempt,
        rules: GreylistRules,
        fill: Fill | None = None,
        version: CacheVersion | None = None,
    ) -> StoreReply[GreylistResult]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        if self._greylist_rules is None or self._greylist_rules[0] is not rules:
            self._greylist_rules = (rules, _greylist_rules(b"0", rules))
        return self._greylist(attempt, self._greylist_rules[1], fill, version)

    def peek_greylist(
        self, attempt: GreylistAttempt, rules: GreylistRules, fill: Fill | None = None
    ) -> StoreReply[GreylistResult]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._greylist(attempt, _greylist_rules(b"1", rules), fill, None)

    def _greylist(
        self, attempt: GreylistAttempt, rules: bytes, fill: Fill | None, version: CacheVersion | None
    ) -> StoreReply[GreylistResult]:
        keys = [self._flag_key(attempt.domain)]
        for name in (attempt.spf_domain, attempt.client) if attempt.spf_domain else (attempt.client,):
            keys += self._tuple_key(name, attempt.sender, attempt.recipient), self._tally_key(name)
        instance, stamp = key_name(attempt.instance), b"" if version is None else version.stamp
        body = b"%b%b%b$1\r\n%d\r\n$%d\r\n%b\r\n%b$%d\r\n%b\r\n" % (
            strings(*keys), self._values.version_key, rules, attempt.forced, len(instance), instance,
            b"" if fill is None else _fill(fill), len(stamp), stamp,
        )  # fmt: skip
        arguments = 9 if fill is None else 12
        return self._run_fast(self._check(len(keys) + 1, arguments), body, self._checked)

    def _checked(self, reply: list[Any]) -> GreylistResult:
        if len(reply) == 1:
            # Of ``version.lua``.
            self._outdated()
            return GreylistResult(Outcome.OUTDATED, 0.0, 0, "")
        return _greylist_result(reply)

    async def pass_greylist(self, client: str, sender: str, recipient: str, rules: GreylistRules) -> None:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        times = microseconds(rules.deferral), microseconds(rules.pass_ttl)
        await self._run(self._pass_greylist, strings(self._tuple_key(client, sender, recipient), *times))

    async def last_attempt(self, client: str, sender: str, recipient: str) -> float:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        times: bytes | None = await self._pool.call(b"GET", self._tuple_key(client, sender, recipient))
        return int(times.split()[1]) / 1e6 if times else 0.0

    async def tally(self, client: str) -> list[tuple[str, float]]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        found: list[bytes] = await self._aside(self._tally, strings(self._tally_key(client)))
        times = [float(time) / 1e6 for time in found[1::2]]
        return [(each.decode("utf-8", "surrogatepass"), time) for each, time in zip(found[::2], times, strict=True)]

    async def clear_tally(self, client: str) -> None:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        await self._run(self._forget, strings(self._tally_key(client)))

    async def drop_flags(self, domains: Iterable[str]) -> None:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        await self._drop([self._flag_key(domain) for domain in domains])

    # --- what another service has counted ---

    async def adopt_counts(self, counts: Sequence[PastCounts]) -> int:
        """See :class:`~chapps_tw.interfaces.adoption.AdoptingState`."""
        return await self._added([self._charges.adopt(each) for each in counts])

    async def adopt_tuples(self, tuples: Sequence[PastTuple], rules: GreylistRules) -> int:
        """See :class:`~chapps_tw.interfaces.adoption.AdoptingState`."""
        lives = [microseconds(each) for each in (rules.deferral, rules.retry_window, rules.pass_ttl)]
        bodies = [strings(self._tuple_key(*names), microseconds(at), *lives) for *names, at in tuples]
        return await self._added([self._aside(self._adopt_tuple, body) for body in bodies])

    async def adopt_tallies(self, tallies: Sequence[PastTally], rules: GreylistRules) -> int:
        """See :class:`~chapps_tw.interfaces.adoption.AdoptingState`."""
        head = microseconds(rules.tally_ttl), b"%d" % rules.threshold
        added = []
        for client, messages in tallies:
            words = [word for instance, at in messages for word in (microseconds(at), key_name(instance))]
            shape = self._adopt_tally.shape(1, 2 + len(words))
            added.append(self._aside(shape, strings(self._tally_key(client), *head, *words)))
        return await self._added(added)

    async def _added(self, replies: Sequence[Deferred[int]]) -> int:
        total = 0
        answers: list[tuple[bool, Any]] = await DeferredList(replies, consumeErrors=True)
        for success, answer in answers:
            if not success:
                raise answer.value
            total += answer
        return total

    def _flag_key(self, domain: str) -> bytes:
        return self._grl + b"flag:" + key_name(domain)

    def _tuple_key(self, client: str, sender: str, recipient: str) -> bytes:
        return self._grl + b"tuple:" + _tuple_digest(as_bytes(client), as_bytes(sender), as_bytes(recipient))

    def _tally_key(self, client: str) -> bytes:
        return self._grl + b"tally:" + key_name(client)

    # --- the rest ---

    async def first_time(self, space: str, name: str, ttl: float) -> bool:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        key = b"%b:%b:{%b}" % (self._prefix, hash_tag(space), hash_tag(name))
        return bool(await self._run(self._first_time, strings(key, milliseconds(ttl))))

    async def ping(self) -> None:
        """See :class:`~chapps_tw.interfaces.state.LiveState`. Writes, since a read-only server cannot be used."""
        await self._pool.ping()

    def _when(self) -> bytes:
        return b"" if self._now is None else b"@" + microseconds(self._now())

    def _run_fast(self, shape: Shape, body: bytes, decode: Decode) -> StoreReply[Any]:
        return self._pool.run_fast(shape, body, self._when(), decode)

    def _run(self, shape: Shape, body: bytes, decode: Decode = unchanged) -> Deferred[Any]:
        return self._pool.run(shape, body, self._when(), decode=decode)

    def _aside(self, shape: Shape, body: bytes) -> Deferred[Any]:
        return self._pool.run(shape, body, self._when(), aside=True)

    def _unique_token(self) -> bytes:
        """Return a token that was never issued before."""
        return b"%b.%d" % (self._unique, next(self._number))

    async def _drop(self, keys: list[bytes]) -> None:
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            dropped = [self._aside(self._drop_copy, strings(key, self._unique_token())) for key in batch]
            for success, answer in await DeferredList(dropped, consumeErrors=True):
                if not success:
                    raise answer.value


def _tuple_digest(client: bytes, sender: bytes, recipient: bytes) -> bytes:
    names = b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        len(client), client, len(sender), sender, len(recipient), recipient
    )  # fmt: skip
    return b2a_hex(blake2b(names, digest_size=16).digest())


def _greylist_result(reply: list[Any]) -> GreylistResult:
    outcome, wait, tally = reply[:3]
    return GreylistResult(_OUTCOMES[outcome], wait / 1e6, tally, reply[3].decode() if outcome == 0 else "")


def _greylist_rules(dry: bytes, rules: GreylistRules) -> bytes:
    times = (rules.deferral, rules.retry_window, rules.pass_ttl, rules.tally_ttl)
    return strings(dry, *map(microseconds, times), b"%d" % rules.threshold)


def _fill(fill: Fill) -> bytes:
    return strings(fill.token.encode(), b"%d" % fill.value, microseconds(fill.ttl))
