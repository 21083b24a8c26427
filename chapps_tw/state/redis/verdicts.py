"""Cached verdicts in Redis, and in the memory of this process, where they may be outdated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from twisted.internet.defer import Deferred, succeed

from chapps_tw.interfaces.state import Assumption, Outcome, Verdict
from chapps_tw.mail.memo import Memo
from chapps_tw.state.redis.names import hash_tag, key_name, milliseconds
from chapps_tw.state.redis.script import Script, Shape, strings

TOMBSTONE = 60.0
"""Seconds after an invalidation in which verdicts read before it are not cached."""

SECONDS = 10.0
"""Lifetime of a verdict in memory. Then it is read again, and compared with the book if that is due."""

# Maximum size of the memory in bytes.
_MAX_BYTES = 16 << 20


class Verdicts:
    """Verdicts by space, owner and name.

    :param run: runs a script, given its shape, and its encoded keys and arguments.
    :param prefix: of all keys.
    :param unique_token: returns a token that was never issued before.
    :param monotonic: monotonic clock.
    :ivar memory: verdicts in the memory of this process.
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
        find, confirm = Script("verdicts"), Script("assumptions", "confirm")
        self._find = lru_cache(16)(lambda names: find.shape(names, 0))
        self._confirm = lru_cache(16)(lambda assumed: confirm.shape(assumed, assumed + 1))
        self._keep, self._drop = Script("keep_verdicts"), Script("drop_verdicts")

    def find(self, space: str, owner: str, names: Sequence[str]) -> Deferred[list[Verdict]]:
        """Return verdicts. Those that allow a name are remembered."""
        if not names:
            return succeed([])
        keys = self._keys(space, owner, names)

        def decode(values: list[bytes | None]) -> list[Verdict]:
            verdicts = [_verdict(value) for value in values]
            for name, key, value, verdict in zip(names, keys, values, verdicts, strict=True):
                if verdict.allowed and value is not None and self.memory.find(space, owner, name) is None:
                    self.memory.add(space, owner, name, key, value)
            return verdicts

        return self._run(self._find(len(keys)), strings(*keys)).addCallback(decode)

    async def keep(self, space: str, owner: str, verdicts: Sequence[tuple[str, bool, str]], ttl: float) -> None:
        """Store verdicts whose token is current."""
        keys = self._keys(space, owner, [name for name, _, _ in verdicts])
        arguments = [milliseconds(ttl)]
        for _, allowed, token in verdicts:
            arguments += [token.encode(), b"1" if allowed else b"0"]
        if keys:
            await self._run(self._keep.shape(len(keys), len(arguments)), strings(*keys, *arguments))

    async def drop(self, space: str, owner: str, names: Sequence[str]) -> list[bool | None]:
        """Invalidate verdicts; return the previous value of each."""
        keys = self._keys(space, owner, names)
        if not keys:
            return []
        body = strings(*keys, b"-" + self._unique_token(), milliseconds(TOMBSTONE))
        previous: list[bytes | None] = await self._run(self._drop.shape(len(keys), 2), body)
        return [_verdict(value).allowed for value in previous]

    def confirm(self, assumptions: Sequence[Assumption]) -> Deferred[bool]:
        """Return whether all assumptions are right. Wrong ones are forgotten."""

        def decode(reply: list[int]) -> bool:
            if reply[0] == Outcome.OUTDATED:
                self.memory.remove(assumptions)
                return False
            return True

        shape = self._confirm(len(assumptions))
        return self._run(shape, with_assumptions(b"", assumptions)).addCallback(decode)

    def _keys(self, space: str, owner: str, names: Iterable[str]) -> list[bytes]:
        begin = b"%b:%b:{%b}:" % (self._prefix, hash_tag(space), hash_tag(owner))
        return [begin + key_name(name) for name in names]


class Memory:
    """Remembers verdicts that allow a name, for :data:`SECONDS`.

    :param monotonic: monotonic clock.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._verdicts: Memo[tuple[str, str, str], tuple[float, Assumption]] = Memo(_MAX_BYTES)

    def find(self, space: str, owner: str, name: str) -> Assumption | None:
        """Return the assumption that a name is allowed; ``None`` if there is no such verdict in memory."""
        found = self._verdicts.get((space, owner, name))
        return found[1] if found is not None and self._monotonic() < found[0] else None

    def add(self, space: str, owner: str, name: str, key: bytes, value: bytes) -> None:
        """Remember a verdict that allows a name.

        :param key: Redis key.
        :param value: its value.
        """
        assumption = Assumption(space, owner, name, strings(key), strings(value))
        size = 4 * (len(space) + len(owner) + len(name)) + len(key) + len(value)
        self._verdicts.keep((space, owner, name), (self._monotonic() + SECONDS, assumption), size)

    def remove(self, assumptions: Iterable[Assumption]) -> None:
        """Forget verdicts."""
        for space, owner, name, _, _ in assumptions:
            self._verdicts.pop((space, owner, name), None)


def with_assumptions(body: bytes, assumptions: Sequence[Assumption]) -> bytes:
    """Add assumptions to encoded keys and arguments: see ``assumptions.lua``."""
    if len(assumptions) == 1:
        _, _, _, key, token = assumptions[0]
        return b"%b%b%b$1\r\n1\r\n" % (key, body, token)
    keys = b"".join([each.key for each in assumptions])
    tokens = b"".join([each.token for each in reversed(assumptions)])
    return keys + body + tokens + strings(b"%d" % len(assumptions))


@lru_cache(256)
def _verdict(value: bytes | None) -> Verdict:
    """Decode the value of a verdict's key, which is also its token."""
    text = (value or b"").decode()
    known = {"1 ": True, "0 ": False}.get(text[:2])
    return Verdict(known, text.removeprefix("?"))
