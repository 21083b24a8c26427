"""The policy book: what somebody decided, as policies and the HTTP API see it."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import NamedTuple, Protocol


class BookUnavailable(Exception):
    """The database cannot be asked, or did not answer in time. Says why in one sentence."""


class BookConflict(Exception):
    """A change would break a unique key or a link. Says which in one sentence."""


class ChangeUncertain(BookUnavailable):
    """The database was lost while it was committing a change.

    :ivar touched: the copies that are wrong if the change is in force after all.
    """

    def __init__(self, why: str, touched: Touched) -> None:
        super().__init__(f"The database was lost while it was committing; look whether the change is in force: {why}")
        self.touched = touched


class QuotaGrant(NamedTuple):
    """What a user may send.

    :ivar known: whether there is such a user.
    :ivar limit: transmissions in the interval; ``None`` when the user has no quota.
    """

    known: bool
    limit: int | None


class SenderGrant(NamedTuple):
    """What a user may send as.

    :ivar known: whether there is such a user.
    :ivar domain: whether the domain asked about is linked to the user.
    :ivar email: whether the address asked about is linked to the user.
    :ivar base: whether the address is that it is a sub-address of.
    """

    known: bool
    domain: bool
    email: bool
    base: bool = False


class DomainFlags(NamedTuple):
    """What is done for mail to a domain; all false for one that is not in the book."""

    known: bool
    greylist: bool
    check_spf: bool


class PolicyBook(Protocol):
    """Read access to what was decided. Every method raises :class:`BookUnavailable`.

    Names are asked for in their normal form (:mod:`chapps_tw.mail.addresses`), and found however they were stored.
    """

    def quota_of(self, user: str) -> Awaitable[QuotaGrant]:
        """The quota of a user."""

    def senders_of(self, user: str, domain: str, email: str, base: str = "") -> Awaitable[SenderGrant]:
        """Whether a domain, an address, and the one that it is a sub-address of, are linked to a user.

        ``""`` is linked to nobody.
        """

    def flags_of(self, domain: str) -> Awaitable[DomainFlags]:
        """The flags of a recipient domain."""

    def ping(self) -> Awaitable[None]:
        """Return when the database answers."""


class Entry(NamedTuple):
    """A row of the book. Which of the last three mean something depends on its kind."""

    id: int
    name: str
    quota: int = 0
    greylist: bool = False
    check_spf: bool = False


class Touched(NamedTuple):
    """Cached copies that a change of the book makes wrong.

    Names are in their normal form, as in the keys of the state.

    :ivar limits: names of users whose limit may have changed.
    :ivar senders: pairs of user name and domain or address, as :meth:`PolicyBook.senders_of` takes them.
    :ivar flags: domains whose flags may have changed.
    :ivar many: kinds of copies, ``limits`` or ``senders``, of which too many are wrong to be named one by one.
    :ivar pending: keys for :meth:`BookKeeper.dropped`; none where nobody knows whether the change is in force.
    """

    limits: frozenset[str] = frozenset()
    senders: frozenset[tuple[str, str]] = frozenset()
    flags: frozenset[str] = frozenset()
    pending: tuple[str, ...] = ()
    many: frozenset[str] = frozenset()


class BookKeeper(PolicyBook, Protocol):
    """The book, open for changes. Kinds are ``users``, ``domains``, ``emails`` and ``quotas``.

    Besides :class:`BookUnavailable`, changes raise :class:`BookConflict` for a name (or a quota's
    number) that is taken, :class:`KeyError` with ``(kind, id)`` for an id that is not there,
    ``ValueError`` for a value that no such entry can have, and :class:`ChangeUncertain`. Each change is
    one transaction, writes down in it what it :class:`Touched`, and returns that beside its result.

    *Links* are given as ``{kind: [ids]}``: of a user ``domains``, ``emails`` and ``quotas`` (one id at
    most); of a domain or an email ``users``.
    """

    def entries(
        self, kind: str, q: str = "", skip: int = 0, limit: int = 1000, linked: tuple[str, int] | None = None
    ) -> Awaitable[list[Entry]]:
        """Entries by id whose name contains ``q``, whatever its case; with ``linked=(kind, id)`` those linked to it."""

    def by_ids(self, kind: str, ids: Sequence[int]) -> Awaitable[list[Entry]]:
        """The entries with these ids that exist, in the order of their ids."""

    def by_name(self, kind: str, name: str) -> Awaitable[Entry | None]:
        """The entry of this name, however either is spelled; of several, the one that the policies take."""

    def links(self, kind: str, ids: Sequence[int], other: str) -> Awaitable[dict[int, list[Entry]]]:
        """For each id, the entries of kind ``other`` that are linked to it, by id."""

    def create(
        self, kind: str, fields: dict[str, str | int | bool], links: dict[str, list[int]]
    ) -> Awaitable[tuple[Entry, Touched]]:
        """Add an entry with its links. A name is stored in its normal form."""

    def update(
        self, kind: str, id: int, fields: dict[str, str | int | bool], links: dict[str, list[int]]
    ) -> Awaitable[tuple[Entry, Touched]]:
        """Change fields; a kind of link that is given replaces those there."""

    def delete(self, kind: str, ids: Sequence[int]) -> Awaitable[tuple[int, Touched]]:
        """Remove the entries with these ids that exist; returns how many."""

    def link(self, kind: str, id: int, other: str, ids: Sequence[int]) -> Awaitable[tuple[None, Touched]]:
        """Add links; those already there are left alone. A user's quota is replaced."""

    def unlink(self, kind: str, id: int, other: str, ids: Sequence[int]) -> Awaitable[tuple[None, Touched]]:
        """Remove links; those not there are left alone."""

    def pending(self, after: str = "") -> Awaitable[list[Touched]]:
        """Some of the drops that changes in force call for, on any node, and nobody has done yet.

        Each has one key, greater than ``after``; they are in the order of their keys.
        """

    def dropped(self, pending: Sequence[str]) -> Awaitable[None]:
        """Forget drops that have been done, whether or not somebody has forgotten them already."""
