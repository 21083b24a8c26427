"""The policy book, as policies and the HTTP API use it: users, domains, addresses, quotas."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol, TypeAlias


class BookUnavailable(Exception):
    """The database is unavailable or did not answer in time. The message is one sentence."""


class BookConflict(Exception):
    """A change would violate a unique key or a link. The message is one sentence."""


class ChangeUncertain(BookUnavailable):
    """The connection was lost during the commit of a change: the change may or may not be stored.

    :ivar stale: keys of the cached values that are stale if it is stored.
    """

    def __init__(self, why: str, stale: StaleKeys) -> None:
        super().__init__(f"The connection was lost during the commit; check whether the change is stored: {why}")
        self.stale = stale


class QuotaGrant(NamedTuple):
    """The quota of a user.

    :ivar known: whether the user exists.
    :ivar limit: transmissions in the interval; ``None`` if the user has no quota.
    """

    known: bool
    limit: int | None


class SenderGrant(NamedTuple):
    """Whether a user may send as a sender.

    :ivar known: whether the user exists.
    :ivar domain: whether the domain is linked to the user.
    :ivar email: whether the address is linked to the user.
    :ivar base: whether the address without its extension is linked to the user.
    """

    known: bool
    domain: bool
    email: bool
    base: bool = False


class DomainFlags(NamedTuple):
    """The flags of a recipient domain. All are false if the book does not contain it."""

    known: bool
    greylist: bool
    check_spf: bool


class PolicyBook(Protocol):
    """Read access for policies. Every method may raise :class:`BookUnavailable`.

    Arguments are names in normal form (:mod:`chapps_tw.mail.addresses`). They match any spelling that is stored.
    """

    def quota_of(self, user: str) -> Awaitable[QuotaGrant]:
        """Return the quota of a user."""

    def senders_of(self, user: str, domain: str, email: str, base: str = "") -> Awaitable[SenderGrant]:
        """Return whether a domain, an address, and the address without its extension are linked to a user.

        ``""`` is never linked.
        """

    def flags_of(self, domain: str) -> Awaitable[DomainFlags]:
        """Return the flags of a recipient domain."""

    def ping(self) -> Awaitable[None]:
        """Check that the database answers."""


class Entry(NamedTuple):
    """A row of the book. ``quota`` is used by quotas, ``greylist`` and ``check_spf`` by domains."""

    id: int
    name: str
    quota: int = 0
    greylist: bool = False
    check_spf: bool = False


class StaleKeys(NamedTuple):
    """Keys of the cached values that a change makes stale. Names are in normal form, as in the live state.

    :ivar limits: users whose limit may have changed.
    :ivar senders: pairs of user and domain or address, as in :meth:`PolicyBook.senders_of`.
    :ivar flags: domains whose flags may have changed.
    :ivar unlisted: contains ``limits`` or ``senders`` if too many of these keys are stale to list them.
    """

    limits: frozenset[str] = frozenset()
    senders: frozenset[tuple[str, str]] = frozenset()
    flags: frozenset[str] = frozenset()
    unlisted: frozenset[str] = frozenset()


Fields: TypeAlias = Mapping[str, str | int | bool]
Links: TypeAlias = Mapping[str, Sequence[int]]

_NO_LINKS: Final[Links] = MappingProxyType({})


class Create(NamedTuple):
    """Add an entry with its links. The name is stored in normal form."""

    kind: str
    fields: Fields
    links: Links = _NO_LINKS


class Update(NamedTuple):
    """Change fields of an entry. The links given for a kind replace the existing links of that kind."""

    kind: str
    id: int
    fields: Fields
    links: Links = _NO_LINKS


class Delete(NamedTuple):
    """Delete the entries with these ids, and their links. Unknown ids are ignored."""

    kind: str
    ids: Sequence[int]


class AddLinks(NamedTuple):
    """Link an entry to others of the kind ``other``. Existing links stay; a user's quota is replaced."""

    kind: str
    id: int
    other: str
    ids: Sequence[int]


class RemoveLinks(NamedTuple):
    """Remove links between an entry and others of the kind ``other``. Links that do not exist are ignored."""

    kind: str
    id: int
    other: str
    ids: Sequence[int]


Edit: TypeAlias = Create | Update | Delete | AddLinks | RemoveLinks


class Changed(NamedTuple):
    """The outcome of a change that is stored.

    :ivar entry: the created or updated entry.
    :ivar users: number of users whose quota or senders the change affects; ``None`` for thousands.
    :ivar awaits_state: the state store is unavailable. The change takes effect when it is available again.
    :ivar awaits_refresh: the change affects thousands of users. It takes effect on this node immediately, and on
        other nodes within ``[PolicyConfigAdapter] refresh``.
    """

    entry: Entry | None
    users: int | None
    awaits_state: bool = False
    awaits_refresh: bool = False


class WritableBook(PolicyBook, Protocol):
    """Read and write access for the HTTP API. Kinds are ``users``, ``domains``, ``emails`` and ``quotas``.

    Links are ``{kind: [ids]}``: a user has ``domains``, ``emails`` and ``quotas`` (at most one id); a domain or an
    email has ``users``.
    """

    def entries(
        self, kind: str, q: str = "", skip: int = 0, limit: int = 1000, linked: tuple[str, int] | None = None
    ) -> Awaitable[list[Entry]]:
        """Return entries whose name contains ``q``, ignoring case, ordered by id.

        :param linked: ``(kind, id)`` of an entry; returns only entries that are linked to it.
        """

    def by_ids(self, kind: str, ids: Sequence[int]) -> Awaitable[list[Entry]]:
        """Return the entries with these ids, ordered by id. Unknown ids are ignored."""

    def by_name(self, kind: str, name: str) -> Awaitable[Entry | None]:
        """Return the entry with a name, in any spelling. If there are several, return the one that policies use."""

    def links(self, kind: str, ids: Sequence[int], other: str) -> Awaitable[dict[int, list[Entry]]]:
        """Return, for each id, the entries of kind ``other`` that are linked to it, ordered by id."""

    def change(self, edit: Edit) -> Awaitable[Changed]:
        """Store a change in one transaction, and invalidate the cached values that it makes stale.

        Returns when the change is in effect for the next request on every node, or is certain to take effect
        later: see :class:`Changed`.

        :raises BookUnavailable: nothing is stored.
        :raises BookConflict: if a name (or the number of a quota) is already in use.
        :raises KeyError: with ``(kind, id)`` for an id that does not exist.
        :raises ValueError: for an invalid value.
        :raises ChangeUncertain: it is unknown whether the change is stored. If it is, it also takes effect.
        """
