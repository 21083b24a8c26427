"""Cached values of the book in Redis, and in the memory of this process, where they may be outdated."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from sys import getsizeof
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed

from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Assumption, CachedValue, Fresh, ValueKey
from chapps_tw.mail.memo import Memo
from chapps_tw.state.redis.names import as_bytes, hash_tag, key_name, milliseconds
from chapps_tw.state.redis.script import Script, Shape, strings

TOMBSTONE = 60.0
"""Seconds after an invalidation in which values read before it are not cached."""

SECONDS = 10.0
"""Lifetime of a value in memory. Then it is read again, and compared with the book if that is due."""

# Maximum size of the memory in bytes. Its largest values are lists that administrators make: up to an eighth of it.
_MAX_BYTES, _PART = 32 << 20, 8

# A longer text, in bytes, is stored in a key of its own: see value.lua.
_LONG = 512

# Maximum number of keys of a script.
_BATCH = 500

_TEXT = re.compile(rb"(?s)(.*) \d+ \d{16}|([01]) \d+")

Stored = bytes | list[bytes | None] | None
"""What the scripts return for a key: see ``values.lua``."""


class Values:
    """Values by key.

    :param run: runs a script, given its shape, and its encoded keys and arguments.
    :param prefix: of all keys.
    :param unique_token: returns a token that was never issued before.
    :param monotonic: monotonic clock.
    :ivar memory: values in the memory of this process.
    """

    def __init__(
        self,
        run: Callable[[Shape, bytes], Deferred[Any]],
        prefix: bytes,
        unique_token: Callable[[], bytes],
        monotonic: Callable[[], float],
    ) -> None:
        self._run = run
        self._prefix = prefix
        self._unique_token = unique_token
        self.memory = Memory(monotonic)
        find, confirm = Script("value", "values"), Script("value", "assumptions", "confirm")
        self._find = lru_cache(16)(lambda names: find.shape(names, 0))
        self._confirm = lru_cache(16)(lambda assumed: confirm.shape(assumed, assumed + 1))
        self._keep, self._drop = Script("keep_values"), Script("value", "drop_values")

    def find(self, keys: Sequence[ValueKey]) -> Deferred[list[CachedValue]]:
        """Return values; remember them, and forget what is not there."""
        if len(keys) > _BATCH:
            return Deferred.fromCoroutine(self._find_many(keys))
        if not keys:
            return succeed([])
        encoded = [self._key(key) for key in keys]

        def decode(found: list[Stored]) -> list[CachedValue]:
            values = [_cached(stored) for stored in found]
            for key, name, value in zip(keys, encoded, values, strict=True):
                if value.value is None:
                    self.memory.remove(key)
                else:
                    self.memory.add(key, value.value, name, as_bytes(value.token))
            return values

        return self._run(self._find(len(keys)), strings(*encoded)).addCallback(decode)

    async def _find_many(self, keys: Sequence[ValueKey]) -> list[CachedValue]:
        found: list[CachedValue] = []
        for start in range(0, len(keys), _BATCH):
            found += await self.find(keys[start : start + _BATCH])
        return found

    async def keep(self, values: Sequence[Fresh], ttl: float) -> None:
        """Store values whose token is current."""
        for start in range(0, len(values), _BATCH):
            batch = values[start : start + _BATCH]
            arguments = [milliseconds(ttl)]
            for _, value, token in batch:
                text = as_bytes(value)
                digest = blake2b(text, digest_size=16).hexdigest().encode() if len(text) > _LONG else b""
                arguments += [as_bytes(token), text, digest]
            keys = [self._key(each.key) for each in batch]
            await self._run(self._keep.shape(len(keys), len(arguments)), strings(*keys, *arguments))

    async def drop(self, keys: Sequence[ValueKey]) -> list[str | None]:
        """Invalidate values; return the previous value of each."""
        previous: list[str | None] = []
        for start in range(0, len(keys), _BATCH):
            names = [self._key(key) for key in keys[start : start + _BATCH]]
            body = strings(*names, b"-" + self._unique_token(), milliseconds(TOMBSTONE))
            were: list[Stored] = await self._run(self._drop.shape(len(names), 2), body)
            previous += [_cached(stored).value for stored in were]
        return previous

    def confirm(self, assumptions: Sequence[Assumption]) -> Deferred[bool]:
        """Return whether all assumptions are right. Wrong ones are forgotten."""
        if not assumptions:
            return succeed(True)

        def decode(reply: list[int]) -> bool:
            if reply[0] == Outcome.OUTDATED:
                self.memory.forget(assumptions)
                return False
            return True

        keys, expected = encoded_assumptions(assumptions)
        return self._run(self._confirm(len(assumptions)), keys + expected).addCallback(decode)

    def _key(self, key: ValueKey) -> bytes:
        return b"%b:%b:{%b}:%b" % (self._prefix, hash_tag(key.space), hash_tag(key.owner), key_name(key.name))


class Memory:
    """Remembers values for :data:`SECONDS`.

    :param monotonic: monotonic clock.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._values: Memo[ValueKey, tuple[float, Assumption]] = Memo(_MAX_BYTES, _PART)

    def find(self, key: ValueKey) -> Assumption | None:
        """Return the assumption that a value is current; ``None`` if there is none in memory."""
        found = self._values.get(key)
        return found[1] if found is not None and self._monotonic() < found[0] else None

    def add(self, key: ValueKey, value: str, name: bytes, stored: bytes) -> None:
        """Remember a value.

        :param name: Redis key.
        :param stored: what is stored there.
        """
        known, encoded = self.find(key), strings(stored)
        if known is not None and known.encoded_value == encoded:
            return
        assumption = Assumption(key, value, strings(name), encoded)
        size = 4 * sum(map(len, key)) + getsizeof(value) + len(name) + len(stored)
        self._values.keep(key, (self._monotonic() + SECONDS, assumption), size)

    def remove(self, key: ValueKey) -> None:
        """Forget a value."""
        self._values.pop(key, None)

    def forget(self, assumptions: Iterable[Assumption]) -> None:
        """Forget the values of assumptions."""
        for each in assumptions:
            self.remove(each.key)


_NONE: Final = (b"", b"$1\r\n0\r\n")


def encoded_assumptions(assumptions: Sequence[Assumption]) -> tuple[bytes, bytes]:
    """Return what assumptions add after the keys and after the arguments of a script: see ``assumptions.lua``."""
    if not assumptions:
        return _NONE
    expected = b"".join([each.encoded_value for each in assumptions])
    return b"".join([each.encoded_key for each in assumptions]), expected + strings(b"%d" % len(assumptions))


def _cached(stored: Stored) -> CachedValue:
    """Decode a value, whose token is what is stored."""
    if isinstance(stored, list):
        token, text = stored
    else:
        token, match = stored, stored and _TEXT.fullmatch(stored)
        text = match[2] or match[1] if match else None
    return CachedValue(None if text is None else _str(text), _str(token or b""))


def _str(text: bytes) -> str:
    return text.decode("utf-8", "surrogatepass")
