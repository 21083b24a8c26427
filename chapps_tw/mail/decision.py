"""Decisions of policies, and their form in the policy protocol."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from math import ceil
from typing import NamedTuple, Self

from chapps_tw.mail.memo import Memoized

MAX_ACTION_CHARACTERS = 500

# Size of the cache of verbs, in bytes.
_CACHE_BYTES = 1 << 20

# Sources of the value behind a decision: a cached value in the live state, or the policy book.
CACHE = "cache"
DATABASE = "database"

_NO_FIGURES: Mapping[str, int | float] = {}


class ReasonCode(StrEnum):
    """Why a policy decided as it did: a stable code for logs, metrics and programs.

    A package with its own reasons defines a subclass, with a member ``NAME = code, meaning`` for each.

    :ivar meaning: description in one or two sentences.
    """

    meaning: str

    # As that of the code, which it is equal to; and three times as fast as that of Enum.
    __hash__ = str.__hash__

    def __new__(cls, code: str, meaning: str) -> Self:
        """Create a member. The meaning is required."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member


class Reason(ReasonCode):
    """The built-in reasons."""

    AUTHORIZED_DOMAIN = "authorized_domain", "The sender's domain is linked to the user."
    AUTHORIZED_EMAIL = (
        "authorized_email",
        "The sender's address, with or without its extension, is linked to the user.",
    )
    OWN_ADDRESS = (
        "own_address",
        "The sender's address, with or without its extension, is the user's login, and own_address is on.",
    )
    SENDER_NOT_AUTHORIZED = (
        "sender_not_authorized",
        "Neither the domain nor the address of the sender is linked to the user, or there is no such user.",
    )
    SENDER_UNCLEAR = (
        "sender_unclear",
        "The sender has no domain: there is no @, or no valid domain name after the last @.",
    )
    NULL_SENDER_ACCEPTED = "null_sender_accepted", "The sender is empty, and null_sender_ok is on."
    NULL_SENDER_REFUSED = "null_sender_refused", "The sender is empty, and null_sender_ok is off."
    NO_USER = "no_user", "The request names no user: the client is not authenticated."
    UNKNOWN_USER = "unknown_user", "There is no such user."
    NO_QUOTA = "no_quota", "The user has no quota and cannot send."
    WITHIN_QUOTA = "within_quota", "The message is within the user's quota, and counts."
    COUNTED_BEFORE = "counted_before", "The message was counted for an earlier request and costs nothing more."
    QUOTA_EXCEEDED = "quota_exceeded", "The message exceeds the user's quota; it fits in `wait` seconds."
    SUSPENDED = "suspended", "The user, or the domain, is suspended from sending mail by an override."
    TOO_SOON = "too_soon", "The user's previous message was less than min_delta seconds ago."
    STAGE_NOT_JUDGED = (
        "stage_not_judged",
        "The policy does not apply to this protocol state, or the request has no recipient. At other protocol states "
        "the answer may differ.",
    )
    RATE_LIMITED = (
        "rate_limited",
        "The message exceeds a limit, which the detail names; it fits in `wait` seconds, if ever.",
    )
    WITHIN_LIMITS = "within_limits", "The message is within all limits that apply to it, and counts."
    NOT_LIMITED = "not_limited", "No limit applies to the request."
    NOT_GREYLISTED = (
        "not_greylisted",
        "Greylisting is off for the recipient's domain, and no other policy requests it.",
    )
    GREYLIST_FIRST = "greylist_first", "First attempt with this client, sender and recipient; the client may retry."
    GREYLIST_EARLY = "greylist_early", "The client retried too early; it may retry after `wait` seconds."
    GREYLIST_PASSED = "greylist_passed", "The client retried after the minimum deferral, or has passed before."
    KNOWN_CLIENT = "known_client", "The client has passed greylisting often enough to be exempt."
    EXEMPTED = "exempted", "An exemption of the policy book is in force; the detail has its id and its reason."
    RECIPIENT_EXEMPT = "recipient_exempt", "The recipient is in exempt_recipients and is not greylisted."
    HELO_WHITELISTED = "helo_whitelisted", "The client is in helo_whitelist; SPF and greylisting are skipped."
    LOGGED_IN = "logged_in", "The client is authenticated; SPF and greylisting are skipped."
    TRUSTED_NETWORK = "trusted_network", "The client is in trusted_networks; SPF and greylisting are skipped."
    SPF_PASS = "spf_pass", "SPF pass: the domain authorizes this client."
    SPF_FAIL = "spf_fail", "SPF fail: the domain does not authorize this client."
    SPF_SOFTFAIL = "spf_softfail", "SPF softfail: the domain probably does not authorize this client."
    SPF_NEUTRAL = "spf_neutral", "SPF neutral: the domain makes no statement about this client."
    SPF_NONE = "spf_none", "SPF none: the domain has no SPF record, or there is no domain to check."
    SPF_TEMPERROR = "spf_temperror", "SPF temperror: DNS timed out or answered with an error; a retry may succeed."
    SPF_PERMERROR = "spf_permerror", "SPF permerror: the SPF record is invalid; only the domain's owner can fix it."
    STATE_UNAVAILABLE = "state_unavailable", "The state store is unavailable; the policy's on_failure applies."
    BOOK_UNAVAILABLE = "book_unavailable", "The database is unavailable; the policy's on_failure applies."
    TIMED_OUT = "timed_out", "The policy did not answer in time; its on_failure applies."
    POLICY_FAILED = "policy_failed", "The policy failed with an error, see the log; its on_failure applies."
    REQUEST_UNREADABLE = (
        "request_unreadable",
        "The request is not a policy request; on_failure of the first policy applies.",
    )


class Decision(NamedTuple):
    """The decision of one policy about one request.

    :ivar action: the Postfix action with its text.
    :ivar reason: the reason code.
    :ivar policy: name of the policy.
    :ivar figures: the numbers behind it: ``limit``, ``used``, ``remaining``, ``wait`` (seconds) ...
    :ivar detail: additional text for people: the error behind a failure, the client that greylisting checked.
    :ivar greylist: requests greylisting from a later policy, whatever the domain's flag.
    :ivar client: another name of the client for a later greylisting policy: the domain whose MAIL FROM passed SPF.
    :ivar shadow: in shadow mode, the action that would have applied otherwise.
    :ivar source: source of the values behind it: :data:`CACHE` or :data:`DATABASE`, and ``dns``.
    """

    action: str
    reason: ReasonCode
    policy: str
    figures: Mapping[str, int | float] = _NO_FIGURES
    detail: str = ""
    greylist: bool = False
    client: str = ""
    shadow: str = ""
    source: str = ""

    @property
    def verb(self) -> str:
        """The action without its text: ``REJECT``, ``DUNNO``, ``450`` ..."""
        return self.action.partition(" ")[0].upper()

    @property
    def stops(self) -> bool:
        """Whether the action refuses, defers or discards the mail."""
        return _stopping_verbs[self.action.partition(" ")[0]]

    @property
    def wire(self) -> bytes:
        """The response in the policy protocol: one ``action=`` line and an empty line."""
        return wire(self.action)


def stops(action: str) -> bool:
    """Whether an access(5) action refuses, defers or discards the mail."""
    return _stopping_verbs[action.partition(" ")[0]]


def _stops(verb: str) -> bool:
    return verb.upper() in ("REJECT", "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT", "DISCARD") or (
        len(verb) == 3 and verb.isdigit() and verb[0] in "45"
    )


def effect(action: str) -> str:
    """Return in a word what an access(5) action does to the mail: ``Accepted``, ``Held``, ``Deferred`` ..."""
    verb = action.partition(" ")[0].upper()
    if verb in _EFFECTS:
        return _EFFECTS[verb]
    if not stops(verb):
        return "Accepted"
    return "Refused" if verb.startswith("5") else "Deferred"


_EFFECTS: Mapping[str, str] = {"HOLD": "Held", "DISCARD": "Discarded", "REJECT": "Refused"}

# By verb, not by action: there are few verbs, while texts may contain the sender.
_stopping_verbs = Memoized(_stops, _CACHE_BYTES)

# All C0 and C1 controls, and the Unicode line separators.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def wire(action: str) -> bytes:
    """Encode an action for the policy protocol: always one line of valid UTF-8 within the size limit."""
    text = action if action.isascii() and action.isprintable() else _CONTROLS.sub(" ", action)
    return b"action=" + text.strip()[:MAX_ACTION_CHARACTERS].encode("utf-8", "replace") + b"\n\n"


_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def fill(template: str, figures: Mapping[str, object]) -> str:
    """Return a message with each ``{name}`` replaced by its figure. Unknown names are left unchanged.

    Figures are untrusted: they are truncated, and placeholders in them are not replaced.

    :param template: a text of the configuration. Parsed templates are cached.
    """
    if "{" not in template:
        return template
    text, *rest = _pieces(template)
    for name, after in rest:
        text += f"{str(figures[name])[:256]}{after}" if name in figures else f"{{{name}}}{after}"
    return text


# Units and their seconds. A unit is used from twice its length on: 90 minutes, not 2 hours.
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60))


@lru_cache(1024)
def in_words(seconds: int) -> str:
    """Return a wait in words, such as ``3 hours``, rounded up."""
    for name, length in _UNITS:
        if seconds >= 2 * length:
            return f"{ceil(seconds / length)} {name}s"
    return f"{seconds} second" + ("s" if seconds != 1 else "")


@lru_cache(256)
def _pieces(template: str) -> tuple[str, *tuple[tuple[str, str], ...]]:
    """Split a template: the text before the first placeholder, then each placeholder's name and the text after it."""
    text, *rest = _PLACEHOLDER.split(template)
    return text, *zip(rest[::2], rest[1::2], strict=True)
