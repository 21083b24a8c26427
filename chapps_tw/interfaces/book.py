"""The policy book: what somebody decided, as policies and the HTTP API see it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol, TypeAlias


class BookUnavailable(Exception):
    """The database cannot be asked, or did not answer in time. Says why in one sentence."""


class BookConflict(Exception):
    """A change would break a unique key or a link. Says which in one sentence."""


class ChangeUncertain(BookUnavailable):
    """The connection was lost during the commit of a change: it may be stored or not.

    :ivar stale: the cached values that are stale if it is stored.
    """

    def __init__(self, why: str, stale: StaleKeys) -> None:
        super().__init__(f"The connection was lost during the commit; check whether the change is stored: {why}")
        self.stale = stale


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


class StaleKeys(NamedTuple):
    """Keys of the cached values that a change makes stale. Names are in their normal form, as in the state store.

    :ivar limits: users whose limit may have changed.
    :ivar senders: pairs of user and domain or address, as :meth:`PolicyBook.senders_of` takes them.
    :ivar flags: domains whose flags may have changed.
    :ivar unlisted: ``limits`` or ``senders``, where too many keys are stale to list them.
    """

    limits: frozenset[str] = frozenset()
    senders: frozenset[tuple[str, str]] = frozenset()
    flags: frozenset[str] = frozenset()
    unlisted: frozenset[str] = frozenset()


Fields: TypeAlias = Mapping[str, str | int | bool]
Links: TypeAlias = Mapping[str, Sequence[int]]

_NO_LINKS: Final[Links] = MappingProxyType({})


class Create(NamedTuple):
    """Add an entry with its links. Its name is stored in its normal form."""

    kind: str
    fields: Fields
    links: Links = _NO_LINKS


class Update(NamedTuple):
    """Change fields of an entry. Links of a kind that is given replace the existing ones."""

    kind: str
    id: int
    fields: Fields
    links: Links = _NO_LINKS


class Delete(NamedTuple):
    """Remove the entries with these ids that exist, and their links."""

    kind: str
    ids: Sequence[int]


class AddLinks(NamedTuple):
    """Link an entry to others of the kind ``other``. Existing links stay; a user's quota is replaced."""

    kind: str
    id: int
    other: str
    ids: Sequence[int]


class RemoveLinks(NamedTuple):
    """Remove the links that exist between an entry and others of the kind ``other``."""

    kind: str
    id: int
    other: str
    ids: Sequence[int]


Edit: TypeAlias = Create | Update | Delete | AddLinks | RemoveLinks


class Changed(NamedTuple):
    """The outcome of a change that is stored.

    :ivar entry: what was created or updated, as it is now.
    :ivar users: how many users have a quota or a sender that the change affects; ``None`` for thousands.
    :ivar awaits_state: the state store is unavailable. The change takes effect when it is available again.
    :ivar awaits_refresh: the change affects thousands of users. It takes effect here at once, and on other nodes
        within ``[PolicyConfigAdapter] refresh``.
    """

    entry: Entry | None
    users: int | None
    awaits_state: bool = False
    awaits_refresh: bool = False


class WritableBook(PolicyBook, Protocol):
    """The book, open for changes. Kinds are ``users``, ``domains``, ``emails`` and ``quotas``.

    *Links* are given as ``{kind: [ids]}``: of a user ``domains``, ``emails`` and ``quotas`` (at most one
    id); of a domain or an email ``users``.
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

    def change(self, edit: Edit) -> Awaitable[Changed]:
        """Store a change in one transaction, and invalidate the cached values that it makes stale.

        Returns when the change is in effect for the next request on every node, or when it is certain to
        become so: see :class:`Changed`.

        :raises BookUnavailable: nothing is stored.
        :raises BookConflict: for a name (or a quota's number) that is taken.
        :raises KeyError: with ``(kind, id)`` for an id that does not exist.
        :raises ValueError: for a value that no such entry can have.
        :raises ChangeUncertain: nobody knows whether it is stored. If it is, it takes effect too.
        """
