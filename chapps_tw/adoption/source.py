"""Reading the Redis of CHAPPS 0.5, while it may be in use. Only commands that read are sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from itertools import groupby
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, DeferredList

T = TypeVar("T")

PAGE: Final = 1000
"""Keys of a page, about, and elements of a sorted set that are read at once."""

# The most elements of a tally that are read: 0.5 keeps one more than its threshold, which is at most this here.
_TALLY: Final = 10_000


class Source:
    """The keys of a Redis server, and their values.

    All methods raise :class:`~chapps_tw.interfaces.state.StateUnavailable`.

    :param call: sends a command.
    """

    def __init__(self, call: Callable[..., Deferred[Any]]) -> None:
        self._call = call

    async def pages(self) -> AsyncIterator[list[bytes]]:
        """Yield all keys, page by page. A key may come twice; one that is made meanwhile may be missing."""
        cursor = b"0"
        while True:
            cursor, keys = await self._call(b"SCAN", cursor, b"COUNT", b"%d" % PAGE)
            yield list(dict.fromkeys(keys))
            if cursor == b"0":
                return

    async def are_sorted_sets(self, keys: Sequence[bytes]) -> list[bool]:
        """Return whether each key is a sorted set. Others must not be read as such: errors would be noted."""
        return [found in ("zset", b"zset") for found in await self._all([(b"TYPE", key) for key in keys])]

    async def strings(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return strings, ``None`` for what is none, or has expired meanwhile."""
        found: list[bytes | None] = await self._call(b"MGET", *keys) if keys else []
        return found

    async def tallies(self, keys: Sequence[bytes], since: float) -> list[list[tuple[bytes, float]]]:
        """Return the elements of sorted sets with a score above a time, oldest first."""
        limit = (b"WITHSCORES", b"LIMIT", b"0", b"%d" % _TALLY)
        found = await self._all([(b"ZRANGEBYSCORE", key, b"(%r" % since, b"+inf", *limit) for key in keys])
        return [list(zip(each[::2], map(float, each[1::2]), strict=True)) for each in found]

    async def attempts(self, key: bytes, since: float) -> AsyncIterator[list[tuple[float, int]]]:
        """Yield the times in a sorted set of attempts above a time, in order, with the number of attempts at each."""
        begin, size, is_last = b"(%r" % since, PAGE, False
        while not is_last:
            found = await self._call(b"ZRANGEBYSCORE", key, begin, b"+inf", b"WITHSCORES", b"LIMIT", b"0", b"%d" % size)
            scores, is_last = found[1::2], len(found) < 2 * size
            groups = [(score, len(list(each))) for score, each in groupby(scores)]
            if not is_last:
                # There may be more at the last time: it is read again. A time with more attempts needs a larger page.
                begin, _ = groups.pop()
                size *= 1 if groups else 2
            if groups:
                yield [(float(score), number) for score, number in groups]

    async def _all(self, commands: Sequence[tuple[bytes, ...]]) -> list[Any]:
        return await together([self._call(*each) for each in commands])


async def together(waiting: Sequence[Deferred[T] | Coroutine[Deferred[Any], Any, T]]) -> list[T]:
    """Return all results, in order; raise the first exception after all have ended."""
    answers: list[tuple[bool, Any]] = await DeferredList(
        [each if isinstance(each, Deferred) else Deferred.fromCoroutine(each) for each in waiting], consumeErrors=True
    )
    for success, answer in answers:
        if not success:
            raise answer.value
    return [answer for _, answer in answers]
