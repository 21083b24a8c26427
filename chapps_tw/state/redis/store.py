"""Live state in Redis, with one Lua script for each operation that changes something.

Keys are ``PREFIX:oqp:{user}``, ``PREFIX:sda:{owner}:name`` and ``PREFIX:grl:{grl}:...``. The part in braces is a hash
tag (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/); each script uses keys of one tag.
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

from chapps_tw.interfaces.state import (
    Assumption,
    Fill,
    GreylistAttempt,
    GreylistResult,
    GreylistRules,
    Outcome,
    Rules,
    Spend,
    Spent,
    Usage,
    Verdict,
)
from chapps_tw.state.redis.names import as_bytes, hash_tag, key_name, microseconds, milliseconds
from chapps_tw.state.redis.pool import RedisPool
from chapps_tw.state.redis.script import Script, strings
from chapps_tw.state.redis.verdicts import Verdicts, with_assumptions

MAX_UNITS = 2**53
"""Limits and costs are clamped to this: above it, Lua's numbers cannot represent all integers."""

_BATCH = 500
_OUTCOMES = tuple(Outcome(number) for number in range(len(Outcome)))


class RedisState:
    """:class:`~chapps_tw.interfaces.state.LiveState` in Redis.

    :param prefix: of all keys.
    :param now: returns epoch seconds, instead of the server's clock; for tests.
    """

    def __init__(self, pool: RedisPool, prefix: str, now: Callable[[], float] | None = None) -> None:
        self._pool = pool
        self._now = now
        self._prefix = hash_tag(prefix)
        self._oqp = self._prefix + b":oqp:{%b}"
        self._grl = self._prefix + b":grl:{grl}:"
        self._unique, self._number = b2a_hex(urandom(12)), count()
        self._rules: tuple[Rules, bytes] | None = None
        self._greylist_rules: tuple[GreylistRules, bytes] | None = None
        self._load()

    def _load(self) -> None:
        spend, check_greylist = Script("copy", "window", "spend"), Script("copy", "greylist")
        self._spend_shape, self._filled_shape = spend.shape(3, 8), spend.shape(3, 11)
        assuming = Script("assumptions", "copy", "window", "spend")
        # The number of assumptions is one more argument.
        self._assuming = lru_cache(16)(lambda filled, n: assuming.shape(3 + n, (11 if filled else 8) + n + 1))
        self._check, self._check_filled = check_greylist.shape(3, 8), check_greylist.shape(3, 11)
        self._check_domain, self._check_domain_filled = check_greylist.shape(5, 8), check_greylist.shape(5, 11)
        self._usage = Script("copy", "window", "usage").shape(3, 1)
        self._reset = Script("window", "reset_usage").shape(3, 1)
        self._drop_copy = Script("drop_copy").shape(1, 1)
        self._tally = Script("tally").shape(1, 0)
        self._forget = Script("forget").shape(1, 0)
        self._first_time = Script("first_time").shape(1, 1)
        self._verdicts = Verdicts(self._run, self._prefix, self._unique_token, self._pool.reactor.seconds)

    # --- quota ---

    def spend(
        self, spend: Spend, rules: Rules, fill: Fill | None = None, assumptions: Sequence[Assumption] = ()
    ) -> Deferred[Spent]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        if self._rules is None or self._rules[0] is not rules:
            self._rules = (rules, _rules(b"0", rules))
        return self._spend(spend, self._rules[1], fill, assumptions)

    def peek_spend(self, spend: Spend, rules: Rules, fill: Fill | None = None) -> Deferred[Spent]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._spend(spend, _rules(b"1", rules), fill)

    def _spend(
        self, spend: Spend, rules: bytes, fill: Fill | None, assumptions: Sequence[Assumption] = ()
    ) -> Deferred[Spent]:
        user, instance, recipient, cost = spend
        message = key_name(instance) if instance else self._unique_token()
        who = blake2b(as_bytes(recipient), digest_size=8).hexdigest().encode() if recipient else b""
        body = b"%b%b$%d\r\n%b\r\n$%d\r\n%b\r\n%b" % (
            self._user_keys(user), rules, len(message), message, len(who), who, strings(b"%d" % min(cost, MAX_UNITS)),
        )  # fmt: skip
        if fill is not None:
            body += _fill(fill)
        if not assumptions:
            shape = self._spend_shape if fill is None else self._filled_shape
            return self._pool.run(shape, body, self._when(), decode=_spent)

        def decode(reply: list[Any]) -> Spent:
            spent = _spent(reply)
            if spent.outcome is Outcome.OUTDATED:
                self._verdicts.memory.remove(assumptions)
            return spent

        shape = self._assuming(fill is not None, len(assumptions))
        return self._pool.run(shape, with_assumptions(body, assumptions), self._when(), decode=decode)

    async def usage(self, users: Sequence[str], interval: float) -> list[Usage]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        window = strings(microseconds(interval))
        return [
            Usage(limit, used, last / 1e6)
            for limit, used, last in await self._for_each(
                users, lambda user: self._aside(self._usage, self._user_keys(user) + window)
            )
        ]

    async def reset_usage(self, user: str, interval: float) -> int:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        used: int = await self._aside(self._reset, self._user_keys(user) + strings(microseconds(interval)))
        return used

    async def drop_limits(self, users: Iterable[str]) -> None:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        await self._drop([self._oqp % hash_tag(user) for user in users])

    def _user_keys(self, user: str) -> bytes:
        key = self._oqp % hash_tag(user)
        size = len(key)
        return b"$%d\r\n%b\r\n$%d\r\n%b:log\r\n$%d\r\n%b:msg\r\n" % (size, key, size + 4, key, size + 4, key)

    # --- verdicts ---

    def verdicts(self, space: str, owner: str, names: Sequence[str]) -> Deferred[list[Verdict]]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._verdicts.find(space, owner, names)

    def assume_allowed(self, space: str, owner: str, name: str) -> Assumption | None:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._verdicts.memory.find(space, owner, name)

    def confirm(self, assumptions: Sequence[Assumption]) -> Deferred[bool]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._verdicts.confirm(assumptions)

    async def keep_verdicts(
        self, space: str, owner: str, verdicts: Sequence[tuple[str, bool, str]], ttl: float
    ) -> None:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        await self._verdicts.keep(space, owner, verdicts, ttl)

    async def drop_verdicts(self, space: str, owner: str, names: Sequence[str]) -> list[bool | None]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return await self._verdicts.drop(space, owner, names)

    # --- greylisting ---

    def check_greylist(
        self, attempt: GreylistAttempt, rules: GreylistRules, fill: Fill | None = None
    ) -> Deferred[GreylistResult]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        if self._greylist_rules is None or self._greylist_rules[0] is not rules:
            self._greylist_rules = (rules, _greylist_rules(b"0", rules))
        return self._greylist(attempt, self._greylist_rules[1], fill)

    def peek_greylist(
        self, attempt: GreylistAttempt, rules: GreylistRules, fill: Fill | None = None
    ) -> Deferred[GreylistResult]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._greylist(attempt, _greylist_rules(b"1", rules), fill)

    def _greylist(self, attempt: GreylistAttempt, rules: bytes, fill: Fill | None) -> Deferred[GreylistResult]:
        keys = [self._flag_key(attempt.domain)]
        for name in (attempt.spf_domain, attempt.client) if attempt.spf_domain else (attempt.client,):
            keys += self._tuple_key(name, attempt.sender, attempt.recipient), self._tally_key(name)
        instance = key_name(attempt.instance)
        body = b"%b%b$1\r\n%d\r\n$%d\r\n%b\r\n" % (
            strings(*keys), rules, attempt.forced, len(instance), instance
        )  # fmt: skip
        if fill is None:
            shape = self._check_domain if attempt.spf_domain else self._check
        else:
            shape, body = self._check_domain_filled if attempt.spf_domain else self._check_filled, body + _fill(fill)
        return self._pool.run(shape, body, self._when(), decode=_greylist_result)

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

    def _run(self, shape: Any, body: bytes) -> Deferred[Any]:
        return self._pool.run(shape, body, self._when())

    def _aside(self, shape: Any, body: bytes) -> Deferred[Any]:
        return self._pool.run(shape, body, self._when(), aside=True)

    def _unique_token(self) -> bytes:
        """Return a token that was never issued before."""
        return b"%b.%d" % (self._unique, next(self._number))

    async def _drop(self, keys: list[bytes]) -> None:
        await self._for_each(keys, lambda key: self._aside(self._drop_copy, strings(key, self._unique_token())))

    async def _for_each(self, items: Sequence[Any], ask: Callable[[Any], Deferred[Any]]) -> list[Any]:
        """Run an operation for each item, in batches. If any fails, raises its error once its batch is done."""
        answers = []
        for start in range(0, len(items), _BATCH):
            asked = [ask(item) for item in items[start : start + _BATCH]]
            for success, answer in await DeferredList(asked, consumeErrors=True):
                if not success:
                    raise answer.value
                answers.append(answer)
        return answers


def _tuple_digest(client: bytes, sender: bytes, recipient: bytes) -> bytes:
    names = b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        len(client), client, len(sender), sender, len(recipient), recipient
    )  # fmt: skip
    return b2a_hex(blake2b(names, digest_size=16).digest())


def _spent(reply: list[Any]) -> Spent:
    if len(reply) == 2:
        # Of ``assumptions.lua``.
        return Spent(_OUTCOMES[reply[0]], 0, 0, 0.0, "")
    outcome, limit, used, wait = reply[:4]
    return Spent(_OUTCOMES[outcome], limit, used, wait / 1e6, reply[4].decode() if outcome == 0 else "")


def _greylist_result(reply: list[Any]) -> GreylistResult:
    outcome, wait, tally = reply[:3]
    return GreylistResult(_OUTCOMES[outcome], wait / 1e6, tally, reply[3].decode() if outcome == 0 else "")


def _rules(dry: bytes, rules: Rules) -> bytes:
    return strings(
        dry,
        microseconds(rules.interval),
        b"%d" % rules.margin_count,
        repr(float(rules.margin_ratio)).encode(),
        microseconds(rules.min_delta),
    )


def _greylist_rules(dry: bytes, rules: GreylistRules) -> bytes:
    times = (rules.deferral, rules.retry_window, rules.pass_ttl, rules.tally_ttl)
    return strings(dry, *map(microseconds, times), b"%d" % rules.threshold)


def _fill(fill: Fill) -> bytes:
    return strings(fill.token.encode(), b"%d" % min(fill.value, MAX_UNITS), microseconds(fill.ttl))
