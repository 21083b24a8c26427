"""What the policies and the HTTP API need, whoever provides it.

Two sources: *live state* is what happens (transmissions counted, tuples met, verdicts cached), the
*policy book* is what somebody decided (users, domains, emails, quotas).

A policy asks the state first. Where that has no copy of what the book says, its outcome is
``MISSING`` with a token; the policy asks the book and asks the state again with a :class:`Fill`. A
copy that was dropped in between is not brought back: the token tells.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol


class StateUnavailable(Exception):
    """The state store cannot be asked, or did not answer in time. Says why in one sentence."""


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


# --- what the book says -------------------------------------------------------------------------


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

    Names are asked for in their normal form (:mod:`chapps_tw.names`), and found however they were stored.
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
    :ivar pending: keys for :meth:`BookKeeper.dropped`; none where nobody knows whether the change is in force.
    """

    limits: frozenset[str] = frozenset()
    senders: frozenset[tuple[str, str]] = frozenset()
    flags: frozenset[str] = frozenset()
    pending: tuple[str, ...] = ()


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


# --- live state ---------------------------------------------------------------------------------


class Outcome(IntEnum):
    """What became of a question to the state. The numbers are those of the Lua scripts."""

    MISSING = 0
    ACCEPTED = 1
    REPEATED = 2
    EXCEEDED = 3
    TOO_SOON = 4
    UNKNOWN_USER = 5
    NO_QUOTA = 6
    NOT_GREYLISTED = 7
    FIRST = 8
    EARLY = 9
    PASSED = 10
    KNOWN_CLIENT = 11


class Fill(NamedTuple):
    """The book's answer, brought to the state after ``MISSING``.

    :ivar token: the one that came with ``MISSING``.
    :ivar value: for quotas the limit, -1 for a user without quota, -2 for an unknown user; for a
        domain's greylisting flag 1 or 0.
    :ivar ttl: seconds that the state may keep it.
    """

    token: str
    value: int
    ttl: float


NO_QUOTA = -1
UNKNOWN_USER = -2


class Rules(NamedTuple):
    """How transmissions are counted. The same for all users.

    :ivar interval: seconds of the rolling window.
    :ivar margin_count, margin_ratio: how far a message that begins below the limit may run over it:
        ``margin_count + floor(limit * margin_ratio)`` transmissions.
    :ivar min_delta: seconds that must pass between two messages of a user.
    """

    interval: float
    margin_count: int
    margin_ratio: float
    min_delta: float


class Spend(NamedTuple):
    """A message, or one more recipient of it, that a user wants to send.

    :ivar instance: what makes requests belong to one message; ``""`` is a message of its own.
    :ivar recipient: the recipient that is added; ``""`` when the message is judged as a whole.
    :ivar cost: transmissions that the whole message costs, 0 when not told (then what it cost so
        far, at least 1). Not used with a recipient.
    """

    user: str
    instance: str
    recipient: str
    cost: int


class Spent(NamedTuple):
    """What became of a :class:`Spend`.

    Outcomes: ``ACCEPTED`` (counted), ``REPEATED`` (nothing new to count, accepted), ``EXCEEDED``,
    ``TOO_SOON``, ``UNKNOWN_USER``, ``NO_QUOTA``, ``MISSING``.

    :ivar limit: the user's limit, 0 where there is none.
    :ivar used: transmissions counted in the window now, this one included when it was accepted.
    :ivar wait: seconds until there may be room again; 0.0 when accepted or when waiting is no use.
    :ivar token: with ``MISSING``, for the :class:`Fill`.
    """

    outcome: Outcome
    limit: int
    used: int
    wait: float
    token: str


class Usage(NamedTuple):
    """What is counted for a user now.

    :ivar limit: the cached copy: a limit, ``NO_QUOTA``, ``UNKNOWN_USER``, or ``None`` when not cached.
    :ivar used: transmissions in the window.
    :ivar last: epoch seconds of the last message counted, 0.0 if never.
    """

    limit: int | None
    used: int
    last: float


class Verdict(NamedTuple):
    """A cached yes or no.

    :ivar allowed: ``None`` when nothing is cached.
    :ivar token: for :meth:`LiveState.keep_verdicts`.
    """

    allowed: bool | None
    token: str


class Meeting(NamedTuple):
    """A message that greylisting meets.

    :ivar client: the network that stands for the client.
    :ivar domain: the recipient's domain, whose flag is asked for.
    :ivar instance: of the request; counts once in the client's tally. May be ``""``.
    :ivar forced: greylist whatever the flag says.
    :ivar spf_domain: another name of the client: the domain whose MAIL FROM passed SPF, or ``""``.
    """

    client: str
    sender: str
    recipient: str
    domain: str
    instance: str
    forced: bool
    spf_domain: str = ""


class Patience(NamedTuple):
    """How greylisting waits. The same for all clients.

    :ivar deferral: seconds that a new tuple must wait.
    :ivar retry_window: seconds that a tuple which was deferred is remembered after it was last met.
    :ivar pass_ttl: seconds that a tuple which has passed is remembered after it was last met.
    :ivar tally_ttl: seconds that a client's tally is remembered after its last message.
    :ivar threshold: messages after which a client passes at once; 0 is off.
    """

    deferral: float
    retry_window: float
    pass_ttl: float
    tally_ttl: float
    threshold: int


class Met(NamedTuple):
    """What became of a :class:`Meeting`.

    Outcomes: ``NOT_GREYLISTED``, ``FIRST`` and ``EARLY`` (defer), ``PASSED``, ``KNOWN_CLIENT``, ``MISSING``.

    :ivar wait: seconds that the client must still wait.
    :ivar tally: messages counted for the client under the name that its mail counts for.
    """

    outcome: Outcome
    wait: float
    tally: int
    token: str


class LiveState(Protocol):
    """Live state. Every method raises :class:`StateUnavailable`; each is one atomic operation.

    Times are the store's own. What its clock, when it was ahead, wrote down as later than now counts as of now.
    What it copied then is not known any more, and a tuple that it met more than a lifetime ahead is new.
    Each operation that changes something is idempotent, so a question that is asked again costs nothing.
    """

    def spend(self, spend: Spend, rules: Rules, fill: Fill | None = None) -> Awaitable[Spent]:
        """Count a message, or another recipient of it, if the user's limit allows: all or nothing.

        * A recipient adds 1 to its message, once. A whole message costs ``cost`` in place of what
          it cost before, so the last stage that is asked has the say; less gives some back.
        * Within the limit is: the message had begun, or ``used < limit`` before it; and all of it
          fits into the limit and the margin.
        * A message that is refused as a whole costs nothing: what it had cost is given back.
        * A message counts from the moment it was first counted, for ``rules.interval`` seconds.
        """

    def peek_spend(self, spend: Spend, rules: Rules, fill: Fill | None = None) -> Awaitable[Spent]:
        """What :meth:`spend` would answer now; changes nothing, and keeps no fill."""

    def usage(self, users: Sequence[str], interval: float) -> Awaitable[list[Usage]]:
        """What is counted for each of some users, in their order."""

    def reset_usage(self, user: str, interval: float) -> Awaitable[int]:
        """Forget what was counted for a user; returns how many transmissions that were."""

    def drop_limits(self, users: Iterable[str]) -> Awaitable[None]:
        """Forget the cached limits of some users. What was counted stays."""

    def verdicts(self, space: str, owner: str, names: Sequence[str]) -> Awaitable[list[Verdict]]:
        """The cached verdicts of one owner (a user, a domain) about some names, in their order.

        :param space: what kind of verdict: ``sda`` or ``spf``.
        """

    def keep_verdicts(
        self, space: str, owner: str, verdicts: Sequence[tuple[str, bool, str]], ttl: float
    ) -> Awaitable[None]:
        """Cache verdicts ``(name, allowed, token)``; one that was dropped since its token was given is left out."""

    def drop_verdicts(self, space: str, owner: str, names: Sequence[str]) -> Awaitable[list[bool | None]]:
        """Forget cached verdicts; returns what each was."""

    def meet(self, meeting: Meeting, patience: Patience, fill: Fill | None = None) -> Awaitable[Met]:
        """Greylist a message.

        * A domain whose flag is off: ``NOT_GREYLISTED`` unless forced, and nothing is remembered.
        * A client whose tally, under either of its names, has reached the threshold: ``KNOWN_CLIENT``.
        * A new tuple, or one last met longer ago than it is remembered: ``FIRST``. Met again before the
          deferral is over: ``EARLY``; that does not start the wait again. Later: ``PASSED``.
        * A tuple that was met under either name of the client counts for both.
        * What passes counts in the client's tally, once per instance: in the domain's where there is one, unless
          the client is known by its network alone.
        """

    def peek_meet(self, meeting: Meeting, patience: Patience, fill: Fill | None = None) -> Awaitable[Met]:
        """What :meth:`meet` would answer now; changes nothing, and keeps no fill."""

    def last_met(self, client: str, sender: str, recipient: str) -> Awaitable[float]:
        """Epoch seconds when greylisting last met a tuple, 0.0 if never."""

    def tally(self, client: str) -> Awaitable[list[tuple[str, float]]]:
        """The instances that count for a client, with their epoch seconds, oldest first."""

    def clear_tally(self, client: str) -> Awaitable[None]:
        """Forget a client's tally."""

    def drop_flags(self, domains: Iterable[str]) -> Awaitable[None]:
        """Forget the cached greylisting flags of some domains."""

    def first_time(self, space: str, name: str, ttl: float) -> Awaitable[bool]:
        """Whether this is the first time in ``ttl`` seconds that the name is brought here."""

    def ping(self) -> Awaitable[None]:
        """Return when the store answers."""
