"""The live state as policies and the HTTP API use it: counts, greylist entries and cached values."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from chapps_tw.interfaces.greylist import Fill, GreylistAttempt, GreylistResult, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.reply import Reply


class StateUnavailable(Exception):
    """The state store is unavailable, or did not answer in time. The message is one sentence."""


class Outdated(Exception):
    """A decision was based on values in memory that are outdated: the policies have to decide again."""


class Unit(StrEnum):
    """What a limit counts.

    ``MESSAGES`` counts 1 for a message. ``RECIPIENTS`` counts its recipients, each once. ``BYTES`` counts the size of
    the message for each recipient. ``DISTINCT_RECIPIENTS`` counts the different recipients of all messages.
    """

    MESSAGES = "messages"
    RECIPIENTS = "recipients"
    BYTES = "bytes"
    DISTINCT_RECIPIENTS = "distinct_recipients"


MAX_DISTINCT: Final = 100_000
"""The largest limit of distinct recipients: each of them is kept."""


class Account(NamedTuple):
    """What is counted together: the messages of a user, of a domain, of a client ... in one unit.

    Names in a space are compared exactly. An account counts in one unit; limits of several windows may share it.

    :ivar space: kind of account. ``oqp`` is the one that existing counts of users are in.
    """

    space: str
    name: str


class Message(NamedTuple):
    """What a request says of its message.

    :ivar instance: identifies the message; ``""`` is a message with a single request.
    :ivar recipient: the recipient that the request names; ``""`` if it names none, which only a whole message does.
    :ivar whole: whether the request is about the whole message, and not about one more recipient of it.
    :ivar reserve: seconds from the first time it is counted in an account, after which its cost is given back there
        unless it is counted for good before; 0.0 counts it for good, and so does ``whole``. Once counted for good, it
        stays so.
    """

    instance: str
    recipient: str
    whole: bool
    reserve: float = 0.0


class Charge(NamedTuple):
    """What a message costs one limit.

    :ivar amount: cost of the whole message, at least 0; 0 if unknown (then its cost so far, at least 1). Ignored for
        ``DISTINCT_RECIPIENTS``, and for ``RECIPIENTS`` if the request is about one more recipient.
    :ivar limit: at least 0.
    :ivar window: seconds of the rolling window.
    :ivar margin: how far a message that begins below the limit may exceed it. Ignored for ``DISTINCT_RECIPIENTS``.
    :ivar min_delta: minimum seconds between two messages of the account. Ignored for ``DISTINCT_RECIPIENTS``.
    """

    account: Account
    unit: Unit
    amount: int
    limit: int
    window: float
    margin: int = 0
    min_delta: float = 0.0


class Spent(NamedTuple):
    """The result of :meth:`LiveState.spend`.

    Outcomes: ``ACCEPTED`` (counted), ``REPEATED`` (accepted, nothing new to count), ``EXCEEDED``, ``TOO_SOON``,
    ``OUTDATED`` (a cached value was dropped).

    :ivar decisive: index of the charge that did not fit, whose outcome this is; of several that with the longest wait,
        before them one that no wait helps; of equal ones the first. -1 if accepted, or ``OUTDATED``.
    :ivar used: what each charge's window contains, in order, including this message if it was accepted, and without
        what was given back if it was refused. Empty if ``OUTDATED``.
    :ivar wait: seconds until the decisive charge may fit: until the oldest that its window contains leaves it; until
        the end of ``min_delta`` if it is too soon. 0.0 if accepted, or if waiting does not help: if the limit is 0, or
        if ``amount`` is not ignored and exceeds limit and margin by itself.
    """

    outcome: Outcome
    decisive: int
    used: tuple[int, ...]
    wait: float


class Window(NamedTuple):
    """The last seconds of an account."""

    account: Account
    unit: Unit
    seconds: float


class Usage(NamedTuple):
    """What a window contains now.

    :ivar used: in its unit.
    :ivar last: epoch seconds of the last message counted in the account, 0.0 if never.
    :ivar oldest: epoch seconds of the oldest that the window contains, 0.0 if it is empty.
    """

    used: int
    last: float
    oldest: float


class ValueKey(NamedTuple):
    """The key of a value of the book that the state caches.

    :ivar space: the kind of value.
    :ivar owner: the user, domain ... that it is about; values of one owner are read together.
    :ivar name: which of the owner's values; may be ``""``.
    """

    space: str
    owner: str
    name: str = ""


class CachedValue(NamedTuple):
    """A cached value.

    :ivar value: ``None`` if nothing is cached.
    :ivar token: for :meth:`LiveState.keep_values`.
    """

    value: str | None
    token: str


class Fresh(NamedTuple):
    """A value that was read from the book, to be cached.

    :ivar token: that of the :class:`CachedValue` that was not there.
    """

    key: ValueKey
    value: str
    token: str


class CacheVersion:
    """A version of the cached values in the memory of this process: no two are equal.

    :ivar stamp: changes in the store whenever a cached value is dropped.
    """

    __slots__ = ("stamp",)

    def __init__(self, stamp: bytes) -> None:
        self.stamp = stamp


class LiveState(Protocol):
    """Live state. Every method raises :class:`StateUnavailable`; each is one atomic operation.

    Times come from the store's clock. If the clock was ahead, counts with a later time than now count as of now, values
    cached meanwhile are discarded, and a tuple from more than a lifetime ahead counts as new. Operations that change
    something are idempotent, so that a repeated request costs nothing.
    """

    def spend(self, message: Message, charges: Sequence[Charge], version: CacheVersion | None = None) -> Reply[Spent]:
        """Count a message, or another recipient of it, if all charges fit: all or nothing.

        * One more recipient adds 1 to what its message has cost in ``RECIPIENTS``, once. Otherwise ``amount`` replaces
          the message's previous cost: the last stage determines it, and a lower cost gives back the difference.
        * A charge fits if it costs nothing more, or if the message was counted before or ``used < limit``, and the
          window with it is within limit and margin. It is too soon for a message that was not counted before, whatever
          the window contains, if the last one is less than ``min_delta`` ago.
        * A message that is refused as a whole costs nothing: its previous cost is given back to all accounts.
        * A message counts for ``window`` seconds from the first time it was counted in the account, and so does what is
          added to it later. Where it has left a shorter window than the account's longest, it costs nothing more.
        * A distinct recipient counts for ``window`` seconds from the last message to it. It is never given back. It
          costs 1 where the window does not contain it. A message that names none costs nothing.
        * It is ``REPEATED`` if no cost changes; it may count for good what was reserved.
        * The cost of this operation does not depend on what was counted, nor on how long the windows are.

        :param charges: at least one. Several may share an account; they have the same unit and amount then. Amounts and
            limits above 2**53 count as 2**53.
        :param version: that the request relies on; if it is outdated, nothing is counted.
        """

    def peek(self, message: Message, charges: Sequence[Charge]) -> Awaitable[Spent]:
        """Return what :meth:`spend` would return now; change nothing."""

    def usage(self, windows: Sequence[Window]) -> Awaitable[list[Usage]]:
        """Return what each window contains, in order."""

    def reset(self, windows: Sequence[Window]) -> Awaitable[list[int]]:
        """Delete all counts of the accounts; return what each window contained."""

    def values(self, keys: Sequence[ValueKey]) -> Awaitable[list[CachedValue]]:
        """Return cached values, in order, in one round trip. They are remembered for :meth:`recall`."""

    def version(self) -> CacheVersion:
        """Return the version of the values in the memory of this process.

        As long as it is the same object, all that :meth:`recall` returned is right, unless another process has dropped
        a value: a decision that is based on it needs :meth:`spend`, :meth:`check_greylist` or :meth:`confirm`. It is
        another object every few seconds, so that what depends on it is found anew.
        """

    def recall(self, key: ValueKey) -> str | None:
        """Return a value in the memory of this process, as of :meth:`version`; ``None`` if there is none."""

    def confirm(self, version: CacheVersion) -> Awaitable[bool]:
        """Return whether no value was dropped since a version."""

    def keep_values(self, values: Sequence[Fresh], ttl: float) -> Awaitable[None]:
        """Cache values, except those dropped since their token was issued."""

    def drop_values(self, keys: Sequence[ValueKey]) -> Awaitable[list[str | None]]:
        """Delete cached values; return what each was."""

    def note_event(self, name: str, ttl: float, event: str) -> Awaitable[bool]:
        """Add an event to the list, unless one with the same name was added within ``ttl`` seconds; return whether.

        :param event: at most 2,000 characters.
        """

    def events(self, count: int) -> Awaitable[list[str]]:
        """Return the last events, newest first. At least the last 1,000 are kept."""

    def check_greylist(
        self,
        attempt: GreylistAttempt,
        rules: GreylistRules,
        fill: Fill | None = None,
        version: CacheVersion | None = None,
    ) -> Reply[GreylistResult]:
        """Apply greylisting to a delivery attempt.

        * The flag of the domain is off and greylisting is not forced: ``NOT_GREYLISTED``; nothing is stored.
        * The client's tally, under either of its names, has reached the threshold: ``KNOWN_CLIENT``.
        * The tuple is new or expired: ``FIRST``. A retry before the end of the deferral: ``EARLY``; it does not
          restart the deferral. A later retry: ``PASSED``.
        * A tuple stored under one name of the client counts for both.
        * A message that passes is added to the client's tally, once per instance: to that of the SPF domain if there
          is one, unless the client is known by its network alone.

        :param version: that the request relies on; if it is outdated, nothing is done (``OUTDATED``).
        """

    def peek_greylist(
        self, attempt: GreylistAttempt, rules: GreylistRules, fill: Fill | None = None
    ) -> Reply[GreylistResult]:
        """Return what :meth:`check_greylist` would return now; change and cache nothing."""

    def pass_greylist(self, client: str, sender: str, recipient: str, rules: GreylistRules) -> Awaitable[None]:
        """Record a tuple as if it had been retried after its deferral: its next attempt passes.

        It lives for ``pass_ttl``, as any tuple that has passed. The client's tally stays.
        """

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

    def announce(self, name: str, text: str, ttl: float) -> Awaitable[list[str]]:
        """Tell those who share this state a text about a name, for ``ttl`` seconds; return all such texts.

        :param name: without NUL. A text replaces the last one of this name.
        :param ttl: at most a day; 0 to end it now.
        """

    def ping(self) -> Awaitable[None]:
        """Return when the store answers."""
