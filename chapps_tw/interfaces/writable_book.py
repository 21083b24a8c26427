"""The policy book as the HTTP API reads and changes it: also limits, overrides, exemptions and the audit trail."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

from chapps_tw.interfaces.book import Edit, Entry, Exemption, PolicyBook
from chapps_tw.interfaces.events import EventsWanted, KeptEvent

MAX_AMOUNT: Final = 2**53
MAX_WINDOW: Final = 366 * 86400
MAX_RULE_NAME: Final = 32
MAX_REASON: Final = 500
MAX_AUTHOR: Final = 64
# The last second of the year 9999.
MAX_TIME: Final = 253402300799

# Of a quota; overrides of a user or of a domain that are not over; exemptions that are not over.
MAX_LIMITS: Final = 16
MAX_OVERRIDES: Final = 32
MAX_EXEMPTIONS: Final = 10_000

# Of an import: lines, and the bad lines that are reported.
MAX_LINES: Final = 200_000
MAX_BAD_LINES: Final = 1000


Sort: TypeAlias = Literal["id", "-id", "name", "-name"]
"""The order of entries; with ``-`` descending."""


class LimitEntry(NamedTuple):
    """A row of ``limits``. Required: ``quota``, ``name``, ``unit``, ``amount``, ``window``.

    :ivar quota: id of its quota; cannot be updated.
    :ivar name: unique within the quota.
    :ivar unit: a :class:`~chapps_tw.interfaces.state.Unit`.
    :ivar amount: 0 to ``MAX_AMOUNT``.
    :ivar window: seconds, 1 to ``MAX_WINDOW``.
    :ivar action: ``refuse`` (default), ``defer`` or ``hold``.
    """

    id: int
    quota: int
    name: str
    unit: str
    amount: int
    window: int
    action: str


class OverrideEntry(NamedTuple):
    """A row of ``overrides``, see :class:`~chapps_tw.interfaces.book.Override`.

    Required: ``user`` or ``domain``, ``kind``, ``until``, and with ``extra`` ``value``.

    :ivar user, domain: id of the user or of the domain that it is about, the other is ``None``; cannot be updated.
    :ivar begin: epoch seconds, by default now.
    :ivar until: epoch seconds, later than ``begin`` and than now.
    :ivar action: of ``suspended``: ``refuse`` (default) or ``defer``; ``""`` otherwise.
    :ivar author: who created it; set by the book.
    :ivar created: epoch seconds; set by the book.
    """

    id: int
    user: int | None
    domain: int | None
    kind: str
    value: int
    limit: str
    begin: float
    until: float
    reason: str
    action: str
    author: str
    created: float


Rule: TypeAlias = LimitEntry | OverrideEntry | Exemption
"""An entry of the kind ``limits``, ``overrides`` or ``exemptions``. Fields of a change have the same names.

Required of an exemption: ``kind``, ``value``, ``scope`` and ``until``; ``author`` and ``created`` are set by the book.
"""


class AuditRecord(NamedTuple):
    """A change of the book or of the live state.

    :ivar at: epoch seconds.
    :ivar author: name of the token, ``""`` if there was none.
    :ivar action: ``create``, ``update``, ``delete``, ``link``, ``unlink`` or ``import``; for the live state the
        caller's own word.
    :ivar kind: kind of entry, or what of the live state was changed.
    :ivar entry: id of the entry; ``None`` for several at once, and for the live state.
    :ivar name: of the entry; of the user or the domain of an override; of the quota of a limit; the value of an
        exemption. ``""`` for several at once.
    :ivar before, after: the fields, and names of links that changed; ``None`` if there was or is nothing. Many names
        are cut: then ``<kind>_total`` is their number.
    """

    id: int
    at: float
    author: str
    action: str
    kind: str
    entry: int | None
    name: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


class Changed(NamedTuple):
    """The outcome of a change that is stored.

    :ivar entry: the created or updated entry; of limits, overrides and exemptions a ``Rule``.
    :ivar users: number of users that had the deleted quotas, domains or addresses; ``None`` for thousands.
    :ivar awaits_state: the state store is unavailable. The change takes effect when it is available again.
    :ivar awaits_refresh: the change affects thousands of users. It takes effect on this node immediately, and on
        other nodes within ``[PolicyConfigAdapter] refresh``.
    """

    entry: Entry | Rule | None
    users: int | None
    awaits_state: bool = False
    awaits_refresh: bool = False


class BadLine(NamedTuple):
    """What is wrong with a line of an import.

    :ivar number: the first line is 1.
    """

    number: int
    sentence: str


class BadLines(Exception):
    """Lines of an import have no valid form, or else name what does not exist. Nothing is stored.

    :ivar lines: at most :data:`MAX_BAD_LINES`.
    :ivar total: how many there are.
    :ivar invalid: whether they have no valid form.
    """

    def __init__(self, lines: Sequence[BadLine], total: int, invalid: bool) -> None:
        super().__init__(f"{total} lines are {'invalid' if invalid else 'about what does not exist'}.")
        self.lines = lines
        self.total = total
        self.invalid = invalid


class Imported(NamedTuple):
    """The outcome of an import that is stored.

    :ivar lines: number of lines, without empty ones and comments.
    :ivar allowed, denied: number of links of users with domains and addresses that were added, and removed.
    :ivar quotas: number of users whose quota was changed.
    :ivar created: number of domains and addresses that were created.
    :ivar awaits_state, awaits_refresh: as of :class:`Changed`.
    """

    lines: int
    allowed: int
    denied: int
    quotas: int
    created: int
    awaits_state: bool = False
    awaits_refresh: bool = False


class WritableBook(PolicyBook, Protocol):
    """Read and write access for the HTTP API.

    Kinds are ``users``, ``domains``, ``emails`` and ``quotas``, which have :class:`Entry`; and ``limits``,
    ``overrides`` and ``exemptions``, which have a :data:`Rule`, and no links.

    Links are ``{kind: [ids]}``: a user has ``domains``, ``emails`` and ``quotas`` (at most one id); a domain or an
    email has ``users``.
    """

    def entries(
        self,
        kind: str,
        q: str = "",
        skip: int = 0,
        limit: int = 1000,
        linked: tuple[str, int] | None = None,
        sort: Sort = "id",
    ) -> Awaitable[list[Entry]]:
        """Return entries whose name contains ``q``, ignoring case.

        :param linked: ``(kind, id)`` of an entry; returns only entries that are linked to it.
        """

    def total(self, kind: str, q: str = "", linked: tuple[str, int] | None = None) -> Awaitable[int]:
        """Return the number of the entries that :meth:`entries` has on all pages."""

    def by_ids(self, kind: str, ids: Sequence[int]) -> Awaitable[list[Entry]]:
        """Return the entries with these ids, ordered by id. Unknown ids are ignored."""

    def by_name(self, kind: str, name: str) -> Awaitable[Entry | None]:
        """Return the entry with a name, in any spelling. If there are several, return the one that policies use."""

    def by_names(self, kind: str, names: Sequence[str]) -> Awaitable[dict[str, Entry]]:
        """Return the entry of each name that exists, as :meth:`by_name` does, in order. Not for quotas.

        :param names: in normal form.
        """

    def links(
        self, kind: str, ids: Sequence[int], other: str, limit: int | None = None
    ) -> Awaitable[dict[int, list[Entry]]]:
        """Return, for each id, the entries of kind ``other`` that are linked to it, ordered by id.

        :param limit: the most entries, of all ids together.
        """

    def limits_of(self, quotas: Sequence[int], limit: int) -> Awaitable[dict[int, list[LimitEntry]]]:
        """Return the limits of each quota, ordered by id; at most ``limit`` of all quotas together."""

    def rules(
        self, kind: str, of: tuple[str, int] | None = None, after: float = 0.0, skip: int = 0, limit: int = 1000
    ) -> Awaitable[Sequence[Rule]]:
        """Return limits, overrides or exemptions, ordered by id.

        :param of: ``("quotas", id)`` of limits, ``("users", id)`` or ``("domains", id)`` of overrides: only its own.
        :param after: epoch seconds: only those that are not over then. Limits are never over.
        """

    def rules_by_ids(self, kind: str, ids: Sequence[int]) -> Awaitable[Sequence[Rule]]:
        """Return the limits, overrides or exemptions with these ids, ordered by id. Unknown ids are ignored."""

    def audit(
        self,
        author: str | None = None,
        kind: str = "",
        name: str = "",
        since: float = 0.0,
        until: float = 0.0,
        before: int = 0,
        limit: int = 100,
    ) -> Awaitable[list[AuditRecord]]:
        """Return records of the audit trail, newest first; at most 1,000. Empty and zero parameters filter nothing.

        :param author: ``""`` for changes without a token, ``None`` for all.
        :param name: exactly as in the record.
        :param since, until: epoch seconds: from ``since`` until before ``until``.
        :param before: id of a record: only those with a smaller id, for the next page.
        """

    def events(self, wanted: EventsWanted) -> Awaitable[list[KeptEvent]]:
        """Return events, newest first; at most 1,000."""

    def add_to_audit(
        self,
        author: str,
        action: str,
        kind: str,
        name: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> Awaitable[None]:
        """Add a record of a change of the live state. Texts are cut to the size of their columns.

        :raises ValueError: if ``before`` or ``after`` is longer than 60,000 bytes as JSON.
        """

    def change(self, edit: Edit, author: str = "") -> Awaitable[Changed]:
        """Store a change and its audit record in one transaction, and invalidate the cached values it makes stale.

        Returns when the change is in effect for the next request on every node, or is certain to take effect
        later: see :class:`Changed`.

        :param author: name of the token, for the audit trail.
        :raises BookUnavailable: nothing is stored.
        :raises BookConflict: if a name is already in use.
        :raises KeyError: with ``(kind, id)`` for an id that does not exist.
        :raises ValueError: for an invalid value.
        :raises ChangeUncertain: it is unknown whether the change is stored. If it is, it also takes effect.
        """

    def import_lines(self, text: bytes, create: bool, author: str = "") -> Awaitable[Imported]:
        """Apply many permissions and quotas in one transaction, with one audit record.

        Returns like :meth:`change`, and raises the same exceptions, except for :exc:`KeyError` and :exc:`ValueError`.

        :param text: lines ``allow:USER:DOMAIN-OR-ADDRESS``, ``deny:USER:DOMAIN-OR-ADDRESS`` and ``quota:USER:QUOTA``.
        :param create: whether domains and addresses of ``allow`` are created if they do not exist.
        :param author: name of the token, for the audit trail.
        :raises BadLines: with every line that is invalid, or names what does not exist.
        """
