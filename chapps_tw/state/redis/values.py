"""Cached values of the book in Redis, and their version, which is in a key of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from twisted.internet.defer import Deferred, succeed

from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import CachedValue, CacheVersion, Fresh, ValueKey
from chapps_tw.state.memory import ValueMemory
from chapps_tw.state.redis.names import as_bytes, hash_tag, key_name, milliseconds
from chapps_tw.state.redis.script import Script, Shape, strings

TOMBSTONE = 60.0
"""Seconds after an invalidation in which values read before it are not cached."""

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
    :param now: epoch seconds.
    :ivar memory: values in the memory of this process.
    """

    def __init__(
        self,
        run: Callable[[Shape, bytes], Deferred[Any]],
        prefix: bytes,
        unique_token: Callable[[], bytes],
        now: Callable[[], float],
    ) -> None:
        self._run = run
        self._prefix = prefix
        self._unique_token = unique_token
        self.memory = ValueMemory(now)
        self.version_key = strings(prefix + b":version")
        find, confirm = Script("value", "values"), Script("version", "confirm")
        self._find = lru_cache(16)(lambda names: find.shape(names + 1, 0))
        self._confirm = confirm.shape(1, 1)
        self._keep, self._drop = Script("keep_values"), Script("value", "drop_values")

    def find(self, keys: Sequence[ValueKey]) -> Deferred[list[CachedValue]]:
        """Return values; remember them, and forget what is not there."""
        if len(keys) > _BATCH:
            return Deferred.fromCoroutine(self._find_many(keys))
        if not keys:
            return succeed([])

        def decode(found: list[Stored]) -> list[CachedValue]:
            stamp = found.pop()
            assert isinstance(stamp, bytes)
            self.memory.set_stamp(stamp)
            values = [_cached(stored) for stored in found]
            for key, value in zip(keys, values, strict=True):
                if value.value is None:
                    self.memory.forget(key)
                else:
                    self.memory.remember(key, value.value)
            return values

        body = strings(*[self._key(key) for key in keys]) + self.version_key
        return self._run(self._find(len(keys)), body).addCallback(decode)

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
            body = strings(*names) + self.version_key + strings(b"-" + self._unique_token(), milliseconds(TOMBSTONE))
            were: list[Stored] = await self._run(self._drop.shape(len(names) + 1, 2), body)
            # The next values that are read bring the new stamp.
            self.memory.set_stamp(b"")
            previous += [_cached(stored).value for stored in were]
        return previous

    def confirm(self, version: CacheVersion) -> Deferred[bool]:
        """Return whether no value was dropped since a version."""

        def decode(reply: list[int]) -> bool:
            if reply[0] == Outcome.OUTDATED:
                self.memory.set_stamp(b"")
                return False
            return True

        return self._run(self._confirm, self.version_key + strings(version.stamp)).addCallback(decode)

    def _key(self, key: ValueKey) -> bytes:
        return b"%b:%b:{%b}:%b" % (self._prefix, hash_tag(key.space), hash_tag(key.owner), key_name(key.name))


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
