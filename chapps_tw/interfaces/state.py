"""The live state as policies and the HTTP API use it: counts, greylist entries and cached values."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol


class StateUnavailable(Exception):
    """The state store is unavailable, or did not answer in time. The message is one sentence."""


class Outdated(Exception):
    """A decision was based on a value in memory that is outdated: the policies have to decide again."""


class Outcome(IntEnum):
    """The outcome of an operation. The Lua scripts return these numbers."""

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
    OUTDATED = 12


class Fill(NamedTuple):
    """A value from the book, passed to the state after ``MISSING``.

    :ivar token: the token of the ``MISSING`` result.
    :ivar value: for quotas the limit, -1 for a user without quota, -2 for an unknown user; for a
        domain's greylisting flag 1 or 0.
    :ivar ttl: seconds that the state may cache it.
    """

    token: str
    value: int
    ttl: float


NO_QUOTA = -1


UNKNOWN_USER = -2


class Rules(NamedTuple):
    """Counting rules, the same for all users.

    :ivar interval: seconds of the rolling window.
    :ivar margin_count, margin_ratio: how far a message that starts below the limit may exceed it:
        ``margin_count + floor(limit * margin_ratio)`` transmissions.
    :ivar min_delta: minimum seconds between two messages of a user.
    """

    interval: float
    margin_count: int
    margin_ratio: float
    min_delta: float


class Spend(NamedTuple):
    """A message, or one more recipient of it, to be counted for a user.

    :ivar instance: identifies the message; ``""`` is a message with a single request.
    :ivar recipient: the recipient to add; ``""`` for the message as a whole.
    :ivar cost: transmissions of the whole message, 0 if unknown (then its cost so far, at least 1). Ignored with a
        recipient.
    """

    user: str
    instance: str
    recipient: str
    cost: int


class Spent(NamedTuple):
    """The result of a :class:`Spend`.

    Outcomes: ``ACCEPTED`` (counted), ``REPEATED`` (accepted, nothing new to count), ``EXCEEDED``,
    ``TOO_SOON``, ``UNKNOWN_USER``, ``NO_QUOTA``, ``MISSING``, ``OUTDATED`` (an assumption is wrong).

    :ivar limit: the user's limit, 0 if there is none.
    :ivar used: transmissions in the window, including this one if it was accepted.
    :ivar wait: seconds until there may be room again; 0.0 if accepted, or if waiting does not help.
    :ivar token: with ``MISSING``, for the :class:`Fill`.
    """

    outcome: Outcome
    limit: int
    used: int
    wait: float
    token: str


class Usage(NamedTuple):
    """The usage of a user now.

    :ivar limit: the cached limit, ``NO_QUOTA``, ``UNKNOWN_USER``, or ``None`` if nothing is cached.
    :ivar used: transmissions in the window.
    :ivar last: epoch seconds of the last message counted, 0.0 if never.
    """

    limit: int | None
    used: int
    last: float


class Verdict(NamedTuple):
    """A cached verdict.

    :ivar allowed: ``None`` if nothing is cached.
    :ivar token: for :meth:`LiveState.keep_verdicts`.
    """

    allowed: bool | None
    token: str


class Assumption(NamedTuple):
    """That a cached verdict still allows a name: the memory of this process says so, the store may have a newer one.

    :ivar key, token: the verdict's key and its token, encoded for the store.
    """

    space: str
    owner: str
    name: str
    key: bytes
    token: bytes


class GreylistAttempt(NamedTuple):
    """A delivery attempt.

    :ivar client: the network of the client.
    :ivar domain: the recipient's domain, whose flag applies.
    :ivar instance: of the request; counts once in the client's tally. May be ``""``.
    :ivar forced: ignore the flag, and greylist.
    :ivar spf_domain: another name of the client: the domain whose MAIL FROM passed SPF, or ``""``.
    """

    client: str
    sender: str
    recipient: str
    domain: str
    instance: str
    forced: bool
    spf_domain: str = ""


class GreylistRules(NamedTuple):
    """Greylisting rules, the same for all clients.

    :ivar deferral: seconds that a new tuple must wait.
    :ivar retry_window: lifetime of a deferred tuple in seconds, from its last attempt.
    :ivar pass_ttl: lifetime of a passed tuple in seconds, from its last attempt.
    :ivar tally_ttl: lifetime of a client's tally in seconds, from its last message.
    :ivar threshold: messages after which a client passes at once; 0 disables this.
    """

    deferral: float
    retry_window: float
    pass_ttl: float
    tally_ttl: float
    threshold: int


class GreylistResult(NamedTuple):
    """The result of a :class:`GreylistAttempt`.

    Outcomes: ``NOT_GREYLISTED``, ``FIRST`` and ``EARLY`` (defer), ``PASSED``, ``KNOWN_CLIENT``, ``MISSING``.

    :ivar wait: remaining seconds until a retry passes.
    :ivar tally: messages in the client's tally.
    :ivar token: with ``MISSING``, for the :class:`Fill`.
    """

    outcome: Outcome
    wait: float
    tally: int
    token: str


class LiveState(Protocol):
    """Live state. Every method raises :class:`StateUnavailable`; each is one atomic operation.

    Times come from the store's clock. If the clock was ahead, counts with a later time than now count as of now, values
    cached meanwhile are discarded, and a tuple from more than a lifetime ahead counts as new. Operations that change
    something are idempotent, so that a repeated request costs nothing.
    """

    def spend(
        self, spend: Spend, rules: Rules, fill: Fill | None = None, assumptions: Sequence[Assumption] = ()
    ) -> Awaitable[Spent]:
        """Count a message, or another recipient of it, if the user's limit allows: all or nothing.

        * A recipient adds 1 to the cost of its message, once. For a whole message, ``cost`` replaces its previous
          cost: the last stage determines it, and a lower cost gives back the difference.
        * A message fits if it was counted before or ``used < limit``, and its cost is within limit and margin.
        * A message that is refused as a whole costs nothing: its previous cost is given back.
        * A message counts for ``rules.interval`` seconds from the first time it was counted.

        :param assumptions: if one is wrong, nothing is counted, and it is removed from the memory.
        """

    def peek_spend(self, spend: Spend, rules: Rules, fill: Fill | None = None) -> Awaitable[Spent]:
        """Return what :meth:`spend` would return now; change and cache nothing."""

    def usage(self, users: Sequence[str], interval: float) -> Awaitable[list[Usage]]:
        """Return the usage of each user, in order."""

    def reset_usage(self, user: str, interval: float) -> Awaitable[int]:
        """Reset the usage of a user; return how many transmissions were counted."""

    def drop_limits(self, users: Iterable[str]) -> Awaitable[None]:
        """Delete cached limits. Counts stay."""

    def verdicts(self, space: str, owner: str, names: Sequence[str]) -> Awaitable[list[Verdict]]:
        """Return the cached verdicts of an owner (a user or a domain) for names, in order.

        :param space: the kind of verdict: ``sda`` or ``spf``.
        """

    def assume_allowed(self, space: str, owner: str, name: str) -> Assumption | None:
        """Return the assumption that a name is allowed; ``None`` if the memory of this process has no such verdict.

        A decision that is based on it needs :meth:`spend` or :meth:`confirm`. A store whose :meth:`verdicts` takes no
        round trip assumes nothing.
        """

    def confirm(self, assumptions: Sequence[Assumption]) -> Awaitable[bool]:
        """Return whether all assumptions are right. Wrong ones are removed from the memory."""

    def keep_verdicts(
        self, space: str, owner: str, verdicts: Sequence[tuple[str, bool, str]], ttl: float
    ) -> Awaitable[None]:
        """Cache verdicts ``(name, allowed, token)``, except those dropped since their token was issued."""

    def drop_verdicts(self, space: str, owner: str, names: Sequence[str]) -> Awaitable[list[bool | None]]:
        """Delete cached verdicts; return what each was."""

    def check_greylist(
        self, attempt: GreylistAttempt, rules: GreylistRules, fill: Fill | None = None
    ) -> Awaitable[GreylistResult]:
        """Apply greylisting to a delivery attempt.

        * The flag of the domain is off and greylisting is not forced: ``NOT_GREYLISTED``; nothing is stored.
        * The client's tally, under either of its names, has reached the threshold: ``KNOWN_CLIENT``.
        * The tuple is new or expired: ``FIRST``. A retry before the end of the deferral: ``EARLY``; it does not
          restart the deferral. A later retry: ``PASSED``.
        * A tuple stored under one name of the client counts for both.
        * A message that passes is added to the client's tally, once per instance: to that of the SPF domain if there
          is one, unless the client is known by its network alone.
        """

    def peek_greylist(
        self, attempt: GreylistAttempt, rules: GreylistRules, fill: Fill | None = None
    ) -> Awaitable[GreylistResult]:
        """Return what :meth:`check_greylist` would return now; change and cache nothing."""

    def last_attempt(self, client: str, sender: str, recipient: str) -> Awaitable[float]:
        """Return the epoch seconds of a tuple's last attempt, 0.0 if there is none."""

    def tally(self, client: str) -> Awaitable[list[tuple[str, float]]]:
        """Return the instances in a client's tally with their epoch seconds, oldest first."""

    def clear_tally(self, client: str) -> Awaitable[None]:
        """Delete a client's tally."""

    def drop_flags(self, domains: Iterable[str]) -> Awaitable[None]:
        """Delete cached greylisting flags."""

    def first_time(self, space: str, name: str, ttl: float) -> Awaitable[bool]:
        """Return whether the name is new here within ``ttl`` seconds, and remember it."""

    def ping(self) -> Awaitable[None]:
        """Return when the store answers."""
