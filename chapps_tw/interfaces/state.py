"""The live state: what happens, as policies and the HTTP API see it."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol


class StateUnavailable(Exception):
    """The state store cannot be asked, or did not answer in time. Says why in one sentence."""


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


class GreylistAttempt(NamedTuple):
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


class GreylistRules(NamedTuple):
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


class GreylistResult(NamedTuple):
    """What became of a :class:`GreylistAttempt`.

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

    def check_greylist(
        self, attempt: GreylistAttempt, rules: GreylistRules, fill: Fill | None = None
    ) -> Awaitable[GreylistResult]:
        """Greylist a message.

        * A domain whose flag is off: ``NOT_GREYLISTED`` unless forced, and nothing is remembered.
        * A client whose tally, under either of its names, has reached the threshold: ``KNOWN_CLIENT``.
        * A new tuple, or one last met longer ago than it is remembered: ``FIRST``. Met again before the
          deferral is over: ``EARLY``; that does not start the wait again. Later: ``PASSED``.
        * A tuple that was met under either name of the client counts for both.
        * What passes counts in the client's tally, once per instance: in the domain's where there is one, unless
          the client is known by its network alone.
        """

    def peek_greylist(
        self, attempt: GreylistAttempt, rules: GreylistRules, fill: Fill | None = None
    ) -> Awaitable[GreylistResult]:
        """What :meth:`check_greylist` would answer now; changes nothing, and keeps no fill."""

    def last_attempt(self, client: str, sender: str, recipient: str) -> Awaitable[float]:
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
