"""The decisions of the quota policy: which text, which figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import ceil

from chapps_tw.config.settings import OutboundQuotaPolicy as Section
from chapps_tw.interfaces.book import Override
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Spent
from chapps_tw.mail.decision import Decision, Reason, fill, in_words, stops
from chapps_tw.policies.limits import UNLIMITED, ActiveLimit

_REASONS = {
    Outcome.ACCEPTED: Reason.WITHIN_QUOTA,
    Outcome.REPEATED: Reason.COUNTED_BEFORE,
    Outcome.EXCEEDED: Reason.QUOTA_EXCEEDED,
    Outcome.TOO_SOON: Reason.TOO_SOON,
}

# The verb of an action, or a reply code, perhaps with an enhanced status code (RFC 3463).
_VERB = re.compile(r"(?:[45]\d\d(?:\s+[45]\.\d{1,3}\.\d{1,3})?|\S+)\s*")

# Units and their seconds, for windows.
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))

# What texts show where there is nothing.
_NONE: Mapping[str, object] = dict.fromkeys(
    ("limit", "used", "remaining", "user", "sender", "limit_name", "window", "level"), "-"
)


class Answers:
    """Makes the decisions of the quota policy.

    :param policy: its name.
    """

    def __init__(self, options: Section, policy: str) -> None:
        self._options = options
        self._policy = policy
        self._accepts_with_figures = "{" in options.acceptance_message

    def accepted(self, reason: Reason, user: str, sender: str, source: str = "") -> Decision:
        """Let a message pass that no limit applies to."""
        action = fill(self._options.acceptance_message, {**_NONE, "user": user, "sender": sender, **_wait(0)})
        return Decision(action, reason, self._policy, source=source)

    def counted(self, spent: Spent, active: Sequence[ActiveLimit], user: str, sender: str, source: str) -> Decision:
        """Let a message pass that was counted, with the figures of the tightest limit."""
        place = 0 if len(active) == 1 else _tightest(spent.used, active)
        limit = active[place]
        figures = _figures(limit, spent.used[place])
        action = self._options.acceptance_message
        if self._accepts_with_figures:
            action = fill(action, {**_NONE, "user": user, "sender": sender, **figures, **_names(limit), **_wait(0)})
        return Decision(action, _REASONS[spent.outcome], self._policy, figures, limit.label, source=source)

    def refused(self, spent: Spent, active: Sequence[ActiveLimit], user: str, sender: str, source: str) -> Decision:
        """Refuse, defer or hold a message, as the limit has it that it exceeds."""
        limit, wait = active[spent.decisive], ceil(spent.wait)
        figures = _figures(limit, spent.used[spent.decisive])
        template = with_action(self._refusal(spent), limit.action) if spent.outcome is Outcome.EXCEEDED else ""
        text = fill(
            template or self._options.min_delta_message,
            {**_NONE, "user": user, "sender": sender, **figures, **_names(limit), **_wait(wait)},
        )
        return Decision(
            text, _REASONS[spent.outcome], self._policy, {**figures, "wait": wait}, limit.label, source=source
        )

    def _refusal(self, spent: Spent) -> str:
        return self._options.rejection_message if spent.wait else self._options.too_large_message

    def without_plan(self, known: bool, user: str, sender: str, detail: str, source: str) -> Decision:
        """Refuse a user without any plan."""
        reason, text = Reason.UNKNOWN_USER, self._options.unknown_user_message
        if known:
            reason, text = Reason.NO_QUOTA, self._options.no_quota_message
        nothing = {"limit": 0, "used": 0, "remaining": 0}
        action = fill(text, {**_NONE, "user": user, "sender": sender, **nothing, **_wait(0)})
        return Decision(action, reason, self._policy, {**nothing, "wait": 0}, detail, source=source)

    def suspended(self, override: Override, user: str, sender: str, now: float, source: str) -> Decision:
        """Refuse or defer a suspended user."""
        wait = max(0, ceil(override.until - now))
        template = with_action(self._options.suspended_message, override.action)
        action = fill(template, {"user": user, "sender": sender, "reason": override.reason, **_wait(wait)})
        detail = f"{override.kind}:{override.id}"
        return Decision(action, Reason.SUSPENDED, self._policy, {"wait": wait}, detail, source=source)


def _tightest(used: Sequence[int], active: Sequence[ActiveLimit]) -> int:
    """Return the index of the limit of which the smallest share is left."""
    shares = [
        (limit.amount - count) / limit.amount if limit.amount else 0.0
        for count, limit in zip(used, active, strict=True)
    ]
    return shares.index(min(shares))


def _figures(limit: ActiveLimit, used: int) -> dict[str, int | float]:
    if limit.amount >= UNLIMITED:
        return {"used": used}
    return {"limit": limit.amount, "used": used, "remaining": max(0, limit.amount - used)}


def _names(limit: ActiveLimit) -> dict[str, object]:
    return {"limit_name": limit.name or limit.quota, "window": in_units(limit.window), "level": limit.level}


def _wait(seconds: int) -> dict[str, object]:
    return {"retry_after": seconds, "retry_in": in_words(seconds)}


@lru_cache(256)
def in_units(seconds: float) -> str:
    """Return a window in words, such as ``1 hour`` or ``90 seconds``."""
    for name, length in _UNITS:
        if seconds >= length and seconds % length == 0:
            number = int(seconds // length)
            return f"{number} {name}" + ("s" if number != 1 else "")
    return f"{seconds:g} seconds"


@lru_cache(256)
def with_action(text: str, action: str) -> str:
    """Return an access(5) action with its text, as a temporary refusal or as HOLD if ``action`` has it so.

    :param action: ``refuse``, ``defer`` or ``hold``.
    """
    verb = text.partition(" ")[0].upper()
    if action == "hold":
        return f"HOLD {_VERB.sub('', text, 1)}"
    is_temporary = verb.startswith("DEFER") or (verb.isdigit() and verb[0] == "4")
    if action == "defer" and not is_temporary and stops(text):
        return f"DEFER_IF_PERMIT {_VERB.sub('', text, 1)}"
    return text
