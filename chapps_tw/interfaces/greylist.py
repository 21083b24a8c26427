"""Greylisting as the live state does it: what it is asked, and what it answers."""

from __future__ import annotations

from typing import NamedTuple

from chapps_tw.interfaces.outcome import Outcome


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

    Outcomes: ``NOT_GREYLISTED``, ``FIRST`` and ``EARLY`` (defer), ``PASSED``, ``KNOWN_CLIENT``, ``MISSING``,
    ``OUTDATED``.

    :ivar wait: remaining seconds until a retry passes.
    :ivar tally: messages in the client's tally.
    :ivar token: with ``MISSING``, for the :class:`Fill`.
    """

    outcome: Outcome
    wait: float
    tally: int
    token: str


class Fill(NamedTuple):
    """A domain's greylisting flag from the book, passed to the state after ``MISSING``.

    :ivar token: the token of the ``MISSING`` result.
    :ivar value: 1 or 0.
    :ivar ttl: seconds that the state may cache it.
    """

    token: str
    value: int
    ttl: float
