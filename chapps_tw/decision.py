"""What a policy answers with, and its form on the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

MAX_ACTION_CHARACTERS = 500

# Where a policy reads what somebody decided: the copy in the state store, or the policy book itself.
CACHE = "cache"
DATABASE = "database"

_NO_FIGURES: Mapping[str, int | float] = {}


class Reason(StrEnum):
    """Why a policy decided as it did. Stable: for logs, metrics and programs."""

    AUTHORIZED_DOMAIN = "authorized_domain"
    AUTHORIZED_EMAIL = "authorized_email"
    SENDER_NOT_AUTHORIZED = "sender_not_authorized"
    SENDER_UNCLEAR = "sender_unclear"
    NULL_SENDER_ACCEPTED = "null_sender_accepted"
    NULL_SENDER_REFUSED = "null_sender_refused"
    NO_USER = "no_user"
    UNKNOWN_USER = "unknown_user"
    NO_QUOTA = "no_quota"
    WITHIN_QUOTA = "within_quota"
    COUNTED_BEFORE = "counted_before"
    QUOTA_EXCEEDED = "quota_exceeded"
    TOO_SOON = "too_soon"
    STAGE_NOT_JUDGED = "stage_not_judged"
    NOT_GREYLISTED = "not_greylisted"
    GREYLIST_FIRST = "greylist_first"
    GREYLIST_EARLY = "greylist_early"
    GREYLIST_PASSED = "greylist_passed"
    KNOWN_CLIENT = "known_client"
    HELO_WHITELISTED = "helo_whitelisted"
    SPF_PASS = "spf_pass"
    SPF_FAIL = "spf_fail"
    SPF_SOFTFAIL = "spf_softfail"
    SPF_NEUTRAL = "spf_neutral"
    SPF_NONE = "spf_none"
    SPF_TEMPERROR = "spf_temperror"
    SPF_PERMERROR = "spf_permerror"
    STATE_UNAVAILABLE = "state_unavailable"
    BOOK_UNAVAILABLE = "book_unavailable"
    TIMED_OUT = "timed_out"
    POLICY_FAILED = "policy_failed"
    REQUEST_UNREADABLE = "request_unreadable"


class Decision(NamedTuple):
    """One policy's answer to one request.

    :ivar action: the Postfix action with its text, as configured.
    :ivar reason: why.
    :ivar policy: name of the policy.
    :ivar figures: what it was decided by: ``limit``, ``used``, ``remaining``, ``wait`` (seconds) ...
    :ivar detail: for the log alone, such as the error behind a failure.
    :ivar greylist: a later greylisting policy is to greylist, whatever the domain's flag.
    :ivar client: a later greylisting policy is to take this for the client (a domain that SPF passed).
    :ivar shadow: the action that would have been, had the policy not been in shadow mode.
    :ivar source: where what was decided by was read: :data:`CACHE` or :data:`DATABASE`, and ``dns``.
    """

    action: str
    reason: Reason
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
        return stops(self.action)

    @property
    def wire(self) -> bytes:
        """The answer as Postfix reads it: one ``action=`` line and an empty line."""
        return wire(self.action)


@lru_cache(4096)
def stops(action: str) -> bool:
    """Whether an access(5) action refuses, defers or discards the mail."""
    verb = action.partition(" ")[0].upper()
    return verb in ("REJECT", "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT", "DISCARD") or (
        len(verb) == 3 and verb.isdigit() and verb[0] in "45"
    )


# All C0 and C1 controls, and the Unicode line ends.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@lru_cache(4096)
def wire(action: str) -> bytes:
    """An action as Postfix reads it. One line of valid UTF-8, however long or odd the action is."""
    text = _CONTROLS.sub(" ", action).strip()[:MAX_ACTION_CHARACTERS]
    return b"action=" + text.encode("utf-8", "replace") + b"\n\n"


_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def fill(template: str, figures: Mapping[str, object]) -> str:
    """A message with ``{name}`` replaced by figures; a name that is no figure stays as it is.

    What is filled in comes from outside: it is shortened, and cannot add placeholders or lines.
    """
    if "{" not in template:
        return template
    return _PLACEHOLDER.sub(lambda match: str(figures.get(match[1], match[0]))[:256], template)
