"""Exemptions of the policy book: who is exempt from a policy or a limit until a date."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Hashable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from chapps_tw.interfaces.book import Exemption, PolicyBook
from chapps_tw.interfaces.state import CacheVersion, LiveState, ValueKey
from chapps_tw.interfaces.value_keys import EXEMPTIONS
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.cached_book import Cached, CachedBook, Stored
from chapps_tw.policies.exemption_list import ExemptionList, decode, digest_of, encode, is_digest
from chapps_tw.policies.refresh import never

SPF: Final = "spf"
GREYLISTING: Final = "greylisting"
SENDER_AUTHORIZATION: Final = "sender_authorization"

# Long, since nothing can be decided without the list: each change drops it, and it is compared with the book.
TTL: Final = 30 * 86400.0


_KEYS: Final = (EXEMPTIONS,)


class Exempt(Protocol):
    """Finds the exemption of a request."""

    def __call__(self, request: OutboundPPR, scope: str, keep: bool = True) -> Awaitable[Exemption | None]:
        """Return the exemption that is in force; ``None`` if there is none.

        If it is certain at once that there is none, :data:`NOBODY` is returned, which need not be awaited.

        :param scope: as in :class:`~chapps_tw.interfaces.book.Exemption`: ``spf``, ``limit:NAME`` ...
        :param keep: false to change nothing, for an explanation.
        :raises StateUnavailable, BookUnavailable: if the live state or the book is unavailable.
        """


def detail_of(exemption: Exemption) -> str:
    """Describe an exemption for the log."""
    return f"exemption {exemption.id}" + (f": {exemption.reason}" if exemption.reason else "")


class _Nobody:
    """Awaiting it returns ``None`` at once."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


NOBODY: Final = _Nobody()


def nobody(request: OutboundPPR, scope: str, keep: bool = True) -> Awaitable[Exemption | None]:
    """Exempt nobody."""
    return NOBODY


class Exemptions:
    """Exemptions, cached in the live state.

    The value of ``EXEMPTIONS`` is only the digest of the list, since each request looks at it. The list
    itself is cached by its digest, so it is never outdated, and parsed once.

    :param now: returns epoch seconds.
    :param fold_case: ``[CHAPPS] fold_case``.
    :param due: whether to compare the list with the book now: :meth:`~chapps_tw.policies.refresh.Refresh.is_due`.
    """

    def __init__(
        self,
        state: LiveState,
        book: PolicyBook,
        now: Callable[[], float],
        fold_case: bool = True,
        due: Callable[[Hashable], bool] = never,
    ) -> None:
        self._state = state
        self._book = book
        self._now = now
        self._fold_case = fold_case
        self._due = due
        # Read when it is due.
        self._digests = CachedBook(state, TTL, _always)
        self._texts = CachedBook(state, TTL)
        # The last text that was read from the book.
        self._text = ""
        self._digest, self._list = "", ExemptionList((), fold_case)
        # A version of the values in memory for which the list is the right one.
        self._version: CacheVersion | None = None

    def of(self, request: OutboundPPR, scope: str, keep: bool = True) -> Awaitable[Exemption | None]:
        """Return the exemption of a request that is in force: see :class:`Exempt`."""
        version = self._state.version() if keep else None
        if version is None or (version is not self._version and self._state.recall(EXEMPTIONS) != self._digest):
            return self._find(request, scope, keep, False)
        self._version = version
        request.rely_on(version)
        return self._find(request, scope, keep, True) if scope in self._list.scopes else NOBODY

    async def _find(self, request: OutboundPPR, scope: str, keep: bool, is_current: bool) -> Exemption | None:
        if not is_current:
            [cached] = await self._state.values(_KEYS)
            if (keep and self._due(EXEMPTIONS)) or cached.value != self._digest:
                await self._read(keep)
        current = self._list
        return current.find(request, scope, self._now()) if scope in current.scopes else None

    async def _read(self, keep: bool) -> None:
        """Have the list that is cached, or the one of the book."""
        digest = (await self._digests.read(_KEYS, self._digest_in_book, keep, _digests)).texts[0]
        if digest == self._digest:
            return
        read = partial(self._text_in_book, digest)
        text = (await self._texts.read((_list_key(digest),), read, keep, partial(_texts, digest))).texts[0]
        # Only a text that is no longer cached has another digest: it is the current one of the book. Another request
        # may have parsed it meanwhile; a long list takes a while.
        if (current := digest_of(text)) != self._digest:
            self._digest, self._list = current, ExemptionList(decode(text), self._fold_case)
            self._version = None
        if keep and self._digest != digest:
            await self._state.drop_values((EXEMPTIONS, _list_key(digest)))

    async def _digest_in_book(self, _keys: Sequence[ValueKey], _cached: Cached) -> Sequence[Stored]:
        self._text = encode(await self._book.exemptions())
        return (Stored(digest_of(self._text)),)

    async def _text_in_book(self, digest: str, _keys: Sequence[ValueKey], _cached: Cached) -> Sequence[Stored]:
        if digest_of(self._text) != digest:
            self._text = encode(await self._book.exemptions())
        return (Stored(self._text),)


def _list_key(digest: str) -> ValueKey:
    return EXEMPTIONS._replace(name=digest)


def _always(_key: Hashable) -> bool:
    return True


def _digests(cached: Cached) -> Cached:
    return {key: text for key, text in cached.items() if is_digest(text)}


def _texts(digest: str, cached: Cached) -> Cached:
    return {key: text for key, text in cached.items() if digest_of(text) == digest}
