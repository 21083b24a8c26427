"""What a policy answers with, and its form on the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from math import ceil
from typing import NamedTuple, Self

from chapps_tw.mail.memo import Answers

MAX_ACTION_CHARACTERS = 500

# Bytes for the verbs that are remembered.
_ROOM = 1 << 20

# Where a policy reads what somebody decided: the copy in the state store, or the policy book itself.
CACHE = "cache"
DATABASE = "database"

_NO_FIGURES: Mapping[str, int | float] = {}


class ReasonCode(StrEnum):
    """Why a policy decided as it did: a code for logs, metrics and programs, which stays the same.

    A package with reasons of its own makes a subclass, with a member ``NAME = code, meaning`` for each.

    :ivar meaning: the same for people, in one sentence or two.
    """

    meaning: str

    def __new__(cls, code: str, meaning: str) -> Self:
        """Make a member; one without a meaning is none."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member


class Reason(ReasonCode):
    """The built-in reasons."""

    AUTHORIZED_DOMAIN = "authorized_domain", "The sender's domain is linked to the user."
    AUTHORIZED_EMAIL = (
        "authorized_email",
        "The sender's address is linked to the user, or the one that it is a sub-address of.",
    )
    SENDER_NOT_AUTHORIZED = (
        "sender_not_authorized",
        "Neither the sender's domain nor the sender's address is linked to the user, or there is no such user.",
    )
    SENDER_UNCLEAR = (
        "sender_unclear",
        "The sender has no domain: there is no @, or what follows the last one is no domain name.",
    )
    NULL_SENDER_ACCEPTED = "null_sender_accepted", "The sender is empty, and null_sender_ok lets that through."
    NULL_SENDER_REFUSED = "null_sender_refused", "The sender is empty, which null_sender_ok does not let through."
    NO_USER = "no_user", "The request does not tell who is sending: nobody has logged in."
    UNKNOWN_USER = "unknown_user", "There is no such user."
    NO_QUOTA = "no_quota", "The user has no quota, and may send nothing."
    WITHIN_QUOTA = "within_quota", "The user may send this: it was counted, and the quota is not used up."
    COUNTED_BEFORE = "counted_before", "This was counted when it was asked about before; it costs nothing again."
    QUOTA_EXCEEDED = "quota_exceeded", "The user's quota does not suffice for this; `wait` is the seconds until it may."
    TOO_SOON = "too_soon", "The user's message before this was less than min_delta seconds ago."
    STAGE_NOT_JUDGED = (
        "stage_not_judged",
        "The policy was not asked anything that it judges: it has to do with other stages of SMTP, or the request has "
        "no recipient. That says nothing about what it will answer at those.",
    )
    NOT_GREYLISTED = (
        "not_greylisted",
        "The recipient's domain does not want greylisting, and nothing else asked for it.",
    )
    GREYLIST_FIRST = "greylist_first", "This client, sender and recipient were not met before; the client may retry."
    GREYLIST_EARLY = "greylist_early", "The client has come back before `wait` was over; it may retry after that."
    GREYLIST_PASSED = "greylist_passed", "The client has come back after the wait."
    KNOWN_CLIENT = "known_client", "The client has passed greylisting so often that it need not wait any more."
    RECIPIENT_EXEMPT = "recipient_exempt", "Mail to this recipient is not greylisted: exempt_recipients names it."
    HELO_WHITELISTED = "helo_whitelisted", "The client is on the helo_whitelist: SPF and greylisting are not asked."
    LOGGED_IN = "logged_in", "The client has logged in: SPF and greylisting are for mail from the world."
    TRUSTED_NETWORK = "trusted_network", "The client is in trusted_networks: SPF and greylisting are not asked."
    SPF_PASS = "spf_pass", "SPF: the domain says that this client may send for it."
    SPF_FAIL = "spf_fail", "SPF: the domain says that this client may not send for it."
    SPF_SOFTFAIL = "spf_softfail", "SPF: the domain says that this client probably may not send for it."
    SPF_NEUTRAL = "spf_neutral", "SPF: the domain says nothing about this client."
    SPF_NONE = "spf_none", "SPF: the domain has no SPF record, or there is no domain to ask."
    SPF_TEMPERROR = "spf_temperror", "SPF: DNS did not answer in time, or with an error; later it may."
    SPF_PERMERROR = "spf_permerror", "SPF: the domain's record is wrong, which only its owner can mend."
    STATE_UNAVAILABLE = "state_unavailable", "The state store is away; on_failure of the policy is the answer."
    BOOK_UNAVAILABLE = "book_unavailable", "The database is away; on_failure of the policy is the answer."
    TIMED_OUT = "timed_out", "The policy had no answer in time; its on_failure is the answer."
    POLICY_FAILED = "policy_failed", "The policy failed, which the log tells more about; its on_failure is the answer."
    REQUEST_UNREADABLE = "request_unreadable", "What came was no policy request; on_failure of the first policy counts."


class Decision(NamedTuple):
    """One policy's answer to one request.

    :ivar action: the Postfix action with its text, as configured.
    :ivar reason: why.
    :ivar policy: name of the policy.
    :ivar figures: what it was decided by: ``limit``, ``used``, ``remaining``, ``wait`` (seconds) ...
    :ivar detail: what else there is to say, for people: the error behind a failure, whom greylisting met.
    :ivar greylist: a later greylisting policy is to greylist, whatever the domain's flag.
    :ivar client: another name of the client for a later greylisting policy: the domain whose MAIL FROM passed SPF.
    :ivar shadow: the action that would have been, had the policy not been in shadow mode.
    :ivar source: where what was decided by was read: :data:`CACHE` or :data:`DATABASE`, and ``dns``.
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
        """Whether the mail goes no further."""
        return _stopping[self.action.partition(" ")[0]]

    @property
    def wire(self) -> bytes:
        """The answer as Postfix reads it: one ``action=`` line and an empty line."""
        return wire(self.action)


def stops(action: str) -> bool:
    """Whether an access(5) action refuses, defers or discards the mail."""
    return _stopping[action.partition(" ")[0]]


def _stops(verb: str) -> bool:
    return verb.upper() in ("REJECT", "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT", "DISCARD") or (
        len(verb) == 3 and verb.isdigit() and verb[0] in "45"
    )


# There are few verbs, while many texts hold the name of a sender.
_stopping = Answers(_stops, _ROOM)

# All C0 and C1 controls, and the Unicode line ends.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def wire(action: str) -> bytes:
    """An action as Postfix reads it. One line of valid UTF-8, however long or odd the action is."""
    text = action if action.isascii() and action.isprintable() else _CONTROLS.sub(" ", action)
    return b"action=" + text.strip()[:MAX_ACTION_CHARACTERS].encode("utf-8", "replace") + b"\n\n"


_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def fill(template: str, figures: Mapping[str, object]) -> str:
    """A message with ``{name}`` replaced by figures; a name that is no figure stays as it is.

    What is filled in comes from outside: it is shortened, and cannot add placeholders or lines.

    :param template: one of the configuration's, which are few.
    """
    if "{" not in template:
        return template
    text, *rest = _pieces(template)
    for name, after in rest:
        text += f"{str(figures[name])[:256]}{after}" if name in figures else f"{{{name}}}{after}"
    return text


# From which on a unit is told, and its seconds: a wait of one and a half of a unit is told in smaller ones.
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60))


@lru_cache(1024)
def in_words(seconds: int) -> str:
    """A wait for people, as ``3 hours``: never shorter than it is."""
    for name, length in _UNITS:
        if seconds >= 2 * length:
            return f"{ceil(seconds / length)} {name}s"
    return f"{seconds} second" + ("s" if seconds != 1 else "")


@lru_cache(256)
def _pieces(template: str) -> tuple[str, *tuple[tuple[str, str], ...]]:
    """What stands before the first placeholder; then each placeholder's name with what stands behind it."""
    text, *rest = _PLACEHOLDER.split(template)
    return text, *zip(rest[::2], rest[1::2], strict=True)
