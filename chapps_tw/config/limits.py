"""``[Limit NAME]``: a limit on mail of any kind, and what its options mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import ClassVar

from chapps_tw.config.actions import message, sentence
from chapps_tw.config.policy_sections import MODE
from chapps_tw.config.sections import option
from chapps_tw.config.values import choice, nearest, whole
from chapps_tw.interfaces.state import Unit
from chapps_tw.interfaces.writable_book import MAX_WINDOW
from chapps_tw.mail.addresses import normal_domain, normal_name
from chapps_tw.mail.durations import Duration, parse_duration
from chapps_tw.mail.network import Network
from chapps_tw.mail.request import ATTRIBUTES

# Every request is compared with all of them.
MAX_LIMITS = 100
MAX_CONDITIONS = 50

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

PER = (
    *("user", "sender", "sender_domain", "client", "client_network", "helo", "recipient", "recipient_domain"),
    "everybody",
)

STAGES_OF: Mapping[Unit, frozenset[str]] = {
    **dict.fromkeys(Unit, frozenset(("RCPT", "DATA", "END-OF-MESSAGE"))),
    Unit.BYTES: frozenset(("END-OF-MESSAGE",)),
}
"""The protocol states at which a unit may be known. Distinct recipients also need a request that names a recipient.

Only at these a message has an instance, by which it is counted (SMTPD_POLICY_README).
"""

FIGURES = ("limit_name", "limit", "used", "window", "retry_after", "retry_in")


def parse_window(text: str) -> Duration:
    """Parse the length of a window, at most 366 days. Letter case, and space before the unit, do not matter.

    :raises ValueError: with the expected form, worded to follow "must be".
    """
    found = parse_duration(re.sub(r"\s+(?=[smhdw]$)", "", text.lower()))
    if found is None or found.seconds > MAX_WINDOW:
        raise ValueError("a whole number with a unit, such as 90s, 10m, 1h, 1d or 2w, of at most 366 days")
    return found


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of an attribute of a request.

    :ivar pattern: in normal form: ``""`` if the attribute must be empty; a value; ``@example.com``, the addresses of a
        domain; or ``.example.com``, a domain with all names under it, and their addresses.
    :ivar network: replaces the pattern: the address must be in it.
    :ivar negated: whether the comparison must fail.
    """

    attribute: str
    pattern: str
    network: Network | None
    negated: bool

    def __str__(self) -> str:
        shown = self.pattern if self.network is None else str(self.network)
        return f"{self.attribute}:{'!' * self.negated}{shown or _EMPTY}"


_EMPTY = "empty"


def parse_match(text: str) -> tuple[Condition, ...]:
    """Parse ``attribute:pattern, attribute:!pattern ...``.

    :raises ValueError: with the expected form, worded to follow "must be".
    """
    parts = [part.strip() for part in text.split(",")] if text else []
    if len(parts) > MAX_CONDITIONS:
        raise ValueError(f"at most {MAX_CONDITIONS} conditions; use networks and .example.com, or several limits")
    return tuple(map(_condition, parts))


def _condition(text: str) -> Condition:
    name, colon, pattern = text.partition(":")
    attribute, pattern = name.strip().lower(), pattern.strip()
    if not colon or not pattern.removeprefix("!").strip():
        form = "attribute:pattern, attribute:!pattern ..., such as sasl_username:empty, client_address:!192.0.2.0/24"
        raise ValueError(f"{form}, not {text!r}")
    if attribute not in ATTRIBUTES:
        near = nearest(attribute, ATTRIBUTES)
        raise ValueError(f"about attributes of Postfix' policy requests, not {attribute!r}{near}")
    wanted = pattern.removeprefix("!").strip()
    negated = wanted != pattern
    if wanted.lower() == _EMPTY:
        return Condition(attribute, "", None, negated)
    if attribute.endswith("_address"):
        return Condition(attribute, "", _network(wanted), negated)
    return Condition(attribute, _normal(wanted), None, negated)


def _network(text: str) -> Network:
    try:
        return ip_network(text.removeprefix("[").removesuffix("]"))
    except ValueError as error:
        raise ValueError(f"an address, a network such as 192.0.2.0/24, or empty ({error})") from None


def _normal(text: str) -> str:
    """Return the normal form of a pattern, in which values are compared with it."""
    suffix = text.removeprefix("*") if text.startswith("*.") else text
    if suffix[0] not in ".@":
        return normal_name(text).removesuffix(".")
    domain = normal_domain(suffix[1:])
    if not domain or "*" in domain:
        raise ValueError(f"a value, @example.com, .example.com or empty, not {text!r}")
    return suffix[0] + domain


def _name_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    parse = choice(*choices)

    def required(value: str) -> str:
        if not value:
            raise ValueError("one of " + ", ".join(choices) + "; it cannot be empty")
        return parse(value)

    return required


ACTIONS = {"refuse": "REJECT", "defer": "DEFER_IF_PERMIT", "hold": "HOLD"}
"""The actions with a text of its own, and their verbs in Postfix."""

# They let the mail pass as if there were no limit, or past all later restrictions.
_POINTLESS = ("DUNNO", "OK")


def _action(value: str) -> str:
    if value.lower() in ACTIONS:
        return value.lower()
    expected = ", ".join(ACTIONS) + ", or a Postfix action such as 450 4.7.1 text"
    try:
        found = message(*FIGURES)(value)
    except ValueError as error:
        raise ValueError(f"one of {expected}{nearest(value, ACTIONS)} ({error})") from None
    if found.partition(" ")[0] in _POINTLESS:
        raise ValueError(f"{expected}; to try a limit out, use mode = shadow")
    return found


@dataclass(frozen=True)
class RateLimit:
    """One limit: ``[Limit NAME]``."""

    section: ClassVar[str] = "Limit"
    name: str = ""
    per: str = option("", f"What is counted together: {', '.join(PER)}.", _name_of(PER))
    unit: Unit = option(
        "recipients",
        "messages, recipients, distinct_recipients (at RCPT), or bytes (size times recipients, at END-OF-MESSAGE).",
        lambda value: Unit(choice(*Unit)(value)),
    )
    amount: int = option("", "How many of them, at most, in the window.", whole(0, 999_999_999_999))
    window: Duration = option("", "Length of the rolling window: 90s, 10m, 1h, 1d, 2w.", parse_window)
    match: tuple[Condition, ...] = option(
        "",
        "Which requests: attribute:pattern, attribute:!pattern, ...; a pattern is a value, empty, a network, "
        "@example.com, or .example.com (all names under it too). Empty is every request.",
        parse_match,
        ", ",
    )
    action: str = option("defer", "What exceeds it: refuse, defer, hold, or a Postfix action with its text.", _action)
    message: str = option(
        "Rate limit exceeded: {used} of {limit} in {window}, try again in {retry_in}",
        "Text of refuse, defer and hold. Placeholders: {limit_name} {limit} {used} {window} {retry_after} (seconds) "
        "{retry_in} (words).",
        sentence(*FIGURES),
    )
    too_large_message: str = option(
        "This message alone exceeds the limit of {limit} in {window}",
        "Text if no wait helps; defer refuses then. Placeholders as in message.",
        sentence(*FIGURES),
    )
    mode: str = option("enforce", *MODE)
    warn_at: int = option("80", "Percentage of the amount whose use is an event; 0 is none.", whole(0, 100))
