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


class Limit(NamedTuple):
    """A limit of a quota, besides the quota's own number.

    :ivar name: unique within the quota, for texts and figures; ``""`` for the quota's own number.
    :ivar unit: ``messages``, ``recipients``, ``bytes`` or ``distinct_recipients``: a
        :class:`~chapps_tw.interfaces.state.Unit`.
    :ivar window: seconds, 1 to 366 days.
    :ivar action: ``refuse``, ``defer`` or ``hold``.
    """

    name: str
    unit: str
    amount: int
    window: int
    action: str


class Plan(NamedTuple):
    """A quota with its limits.

    :ivar quota: transmissions in the interval of ``[OutboundQuotaPolicy]``; ``None`` if only its limits count.
    """

    id: int
    name: str
    quota: int | None
    limits: tuple[Limit, ...]


class Override(NamedTuple):
    """A temporary exception of a user or a domain.

    :ivar kind: ``extra`` (``value`` more until then), ``unlimited``, or ``suspended``.
    :ivar value: of ``extra``, in the unit of the limit.
    :ivar limit: name of the only limit that it applies to; ``""`` for all (``extra``: for those that count messages or
        recipients).
    :ivar begin, until: epoch seconds; in force from ``begin`` until before ``until``.
    :ivar reason: shown to administrators, and with ``suspended`` to the user.
    :ivar action: with ``suspended``: ``refuse`` or ``defer``.
    """

    id: int
    kind: str
    value: int
    limit: str
    begin: float
    until: float
    reason: str
    action: str


class UserPlan(NamedTuple):
    """What the book says of a user's limits.

    :ivar known: whether the user exists.
    :ivar quota: id of the user's own quota, ``None`` if there is none.
    :ivar overrides: those that are not over yet, ordered by id.
    """

    known: bool
    quota: int | None
    overrides: tuple[Override, ...] = ()


class DomainPlan(NamedTuple):
    """What the book says of a domain's limits.

    :ivar each: id of the quota of each user of the domain who has none of his own.
    :ivar pool: id of the quota that all users of the domain share.
    :ivar overrides: those of the domain that are not over yet. They apply to its pool; ``suspended`` to all its users.
    """

    each: int | None
    pool: int | None
    overrides: tuple[Override, ...] = ()


class Exemption(NamedTuple):
    """Who is exempt from a policy or a limit until a date.

    :ivar kind: ``client`` (an address or a network), ``sender``, ``sender_domain`` (also its subdomains if it begins
        with a dot) or ``recipient``.
    :ivar value: in normal form.
    :ivar scope: ``spf``, ``greylisting``, ``sender_authorization``, or ``limit:NAME`` of a ``[Limit NAME]``.
    :ivar until: epoch seconds.
    :ivar reason, author: for administrators.
    :ivar created: epoch seconds.
    """

    id: int
    kind: str
    value: str
    scope: str
    until: float
    reason: str
    author: str
    created: float = 0.0


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

    def user_plan(self, user: str) -> Awaitable[UserPlan]:
        """Return what applies to a user alone."""

    def domain_plan(self, domain: str) -> Awaitable[DomainPlan]:
        """Return what applies to the users of a domain. All is empty if the book does not contain it."""

    def plan(self, quota: int) -> Awaitable[Plan | None]:
        """Return a quota with its limits; ``None`` if it does not exist."""

    def plan_named(self, name: str) -> Awaitable[Plan | None]:
        """Return the quota with a name, and its limits; ``None`` if it does not exist."""

    def exemptions(self) -> Awaitable[tuple[Exemption, ...]]:
        """Return all exemptions that are not over yet, ordered by id; at most 10,000."""

    def senders_of(self, user: str, domain: str, email: str, base: str = "") -> Awaitable[SenderGrant]:
        """Return whether a domain, an address, and the address without its extension are linked to a user.

        ``""`` is never linked.
        """

    def flags_of(self, domain: str) -> Awaitable[DomainFlags]:
        """Return the flags of a recipient domain."""

    def ping(self) -> Awaitable[None]:
        """Check that the database answers."""


class Entry(NamedTuple):
    """A row of the kinds that CHAPPS has.

    :ivar quota: of quotas; ``None`` if only its limits count.
    :ivar greylist, check_spf, each_quota, pool_quota: of domains; the quotas as ids, ``None`` for none.
    """

    id: int
    name: str
    quota: int | None = 0
    greylist: bool = False
    check_spf: bool = False
    each_quota: int | None = None
    pool_quota: int | None = None


class StaleKeys(NamedTuple):
    """Keys of the cached values that a change makes stale. Names are in normal form, as in the live state.

    Their number does not depend on how many users have a quota or a domain: a policy that finds that the quota of a
    user or a domain no longer exists goes on as if there were none.

    :ivar users: users whose :class:`UserPlan` may have changed.
    :ivar senders: pairs of user and domain or address, as in :meth:`PolicyBook.senders_of`.
    :ivar flags: domains whose flags may have changed.
    :ivar quotas: ids of quotas whose :class:`Plan` may have changed.
    :ivar quota_names: names that a quota has or had.
    :ivar domains: domains whose :class:`DomainPlan` may have changed.
    :ivar sender_domains: domains of which all verdicts are stale, and those about their addresses.
    :ivar exemptions: whether exemptions have changed.
    :ivar unlisted: contains ``users`` or ``senders`` if too many of these keys are stale to list them.
    """

    users: frozenset[str] = frozenset()
    senders: frozenset[tuple[str, str]] = frozenset()
    flags: frozenset[str] = frozenset()
    quotas: frozenset[int] = frozenset()
    quota_names: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    sender_domains: frozenset[str] = frozenset()
    exemptions: bool = False
    unlisted: frozenset[str] = frozenset()


Fields: TypeAlias = Mapping[str, str | int | float | bool | None]
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
