"""Checks of ``[Limit NAME]`` and ``[RateLimitPolicy]``: conflicts, and limits without effect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from chapps_tw.config.checks import Finding
from chapps_tw.config.limits import ACTIONS, MAX_LIMITS, NAME, STAGES_OF, RateLimit
from chapps_tw.config.settings import RateLimitPolicy, Settings
from chapps_tw.config.values import nearest
from chapps_tw.interfaces.state import MAX_DISTINCT, Unit

_POLICY = RateLimitPolicy.section
_STAGE = "protocol_state"

# The attribute that each kind of counting reads; a user may have several.
_SOURCES = {
    "sender": "sender",
    "sender_domain": "sender",
    "client": "client_address",
    "client_network": "client_address",
    "helo": "helo_name",
    "recipient": "recipient",
    "recipient_domain": "recipient",
}


def contradictions(settings: Settings) -> Iterator[Finding]:
    """Find errors: names that are invalid, used twice or unknown, too many limits, and options that conflict."""
    names = [limit.name for limit in settings.limits]
    for name in dict.fromkeys(names):
        if not NAME.fullmatch(name):
            yield _of(name, "must have a name of at most 64 letters, digits, and . _ - after them: [Limit flood]")
        elif names.count(name) > 1:
            yield _of(name, f"is a duplicate; rename one of the sections [Limit {name}]")
    if len(names) > MAX_LIMITS:
        words = f"is one of {len(names)} limits; there may be {MAX_LIMITS}: every request is compared with all of them"
        yield _of(names[MAX_LIMITS], words)
    for name in settings.rlp.limits:
        if name not in names:
            words = f"must name limits, and there is no section [Limit {name}]{nearest(name, names)}"
            yield Finding(_POLICY, "limits", ", ".join(settings.rlp.limits), words)
    for limit in settings.limits:
        yield from _of_amount(limit)
        yield from _of_texts(limit)


def _of(name: str, words: str) -> Finding:
    return Finding(f"Limit {name}", "per", name, words)


def _of_amount(limit: RateLimit) -> Iterator[Finding]:
    if limit.unit is Unit.DISTINCT_RECIPIENTS and limit.amount > MAX_DISTINCT:
        words = f"must be at most {MAX_DISTINCT} with unit = {limit.unit}: each of them is kept"
        yield Finding(f"Limit {limit.name}", "amount", str(limit.amount), words)


def _of_texts(limit: RateLimit) -> Iterator[Finding]:
    section = f"Limit {limit.name}"
    if limit.action in ACTIONS:
        return
    for each in fields(limit):
        text = getattr(limit, each.name)
        if each.name.endswith("message") and text != each.metadata["default"]:
            words = f"has no effect while action is an action of Postfix with its own text; use {' or '.join(ACTIONS)}"
            yield Finding(section, each.name, text, words, ((section, "action"),))


def warnings(settings: Settings) -> Iterator[Finding]:
    """Find limits that never apply."""
    used = any(_POLICY in listener.policies for listener in settings.listeners)
    named = settings.rlp.limits
    for limit in settings.limits:
        section = f"Limit {limit.name}"
        if not used:
            yield Finding(section, "per", limit.per, f"has no effect: no listener has {_POLICY}")
        elif named and limit.name not in named:
            words = f"has no effect: [{_POLICY}] limits does not name {limit.name}"
            yield Finding(section, "per", limit.per, words, ((_POLICY, "limits"),))
        yield from _never_judged(limit, section, settings)
    if used and not settings.limits:
        yield Finding(_POLICY, "limits", "", "limits nothing: there is no section [Limit NAME]")


def _never_judged(limit: RateLimit, section: str, settings: Settings) -> Iterator[Finding]:
    match = ", ".join(map(str, limit.match))
    asked = {each.pattern.upper() for each in limit.match if each.attribute == _STAGE and not each.negated}
    excluded = {each.pattern.upper() for each in limit.match if each.attribute == _STAGE and each.negated}
    known = STAGES_OF[limit.unit]
    if not ((known & asked if asked else known) - excluded):
        words = f"never applies: {limit.unit} are known only at {' and '.join(sorted(known))}"
        yield Finding(section, "match", match, words, ((section, "unit"),))
    source = settings.chapps.user_key if limit.per == "user" else _SOURCES.get(limit.per, "")
    if any(each.attribute == source and not each.negated and str(each).endswith(":empty") for each in limit.match):
        words = f"never applies: without {source} there is no {limit.per.replace('_', ' ')} to count"
        yield Finding(section, "match", match, words, ((section, "per"),))
    if limit.unit is Unit.BYTES and limit.per in ("recipient", "recipient_domain"):
        words = "applies only to messages with one recipient: Postfix names no other at END-OF-MESSAGE"
        yield Finding(section, "per", limit.per, words, ((section, "unit"),))
