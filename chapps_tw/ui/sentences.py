"""Decisions in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from chapps_tw.mail.decision import Reason, ReasonCode, effect, in_words, stops
from chapps_tw.ui.views import url

_TONES = {"Accepted": "good", "Held": "wait", "Deferred": "wait", "Discarded": "bad", "Refused": "bad"}
# Level, quota and limit, and overrides (:class:`chapps_tw.policies.limits.ActiveLimit`).
_LABEL = re.compile(r"(?:user|domain|default|pool):(.*?)(?:\+(?:extra|unlimited):[0-9]+)*")
# As the policy of limits writes it.
_RATE_LIMIT = re.compile(r"limit (\S+), .*")
_GREYLISTED = (Reason.GREYLIST_FIRST, Reason.GREYLIST_EARLY)
_SPF = tuple(each for each in Reason if each.startswith("spf_"))


class Told(NamedTuple):
    """A decision in words.

    :ivar verb: what happened to the mail: ``Refused`` ...
    :ivar tone: ``good``, ``wait`` or ``bad``.
    :ivar why: a sentence without its end.
    :ivar room_at: epoch seconds at which there is room again, 0.0 if that does not apply.
    :ivar explain: address of the view that explains the same request now.
    :ivar help: addresses of views that help, with their titles.
    """

    record: Mapping[str, Any]
    verb: str
    tone: str
    why: str
    room_at: float
    explain: str
    help: list[tuple[str, str]]


class Teller:
    """Tells decisions in words.

    :param reasons: of all policies.
    """

    def __init__(self, reasons: Iterable[ReasonCode]) -> None:
        self._meanings = {str(reason): reason.meaning.rstrip(".") for reason in reasons}

    def tell(self, record: Mapping[str, Any]) -> Told:
        """Return a decision, as the API shows it, in words."""
        action = record["shadow"] or record["action"]
        verb = effect(action)
        tone = _TONES[verb]
        if record["shadow"]:
            verb, tone = f"{verb} if shadow mode were off", "good"
        wait = record["figures"].get("wait") or 0
        is_wait = wait > 0 and record["reason"] in (Reason.QUOTA_EXCEEDED, Reason.RATE_LIMITED, Reason.TOO_SOON)
        room_at = record["time"] + wait if is_wait else 0.0
        return Told(record, verb, tone, self._why(record), room_at, _explain(record), _help(record))

    def meaning(self, reason: str) -> str:
        """Return what a reason means; the reason itself if it is unknown."""
        return self._meanings.get(reason, reason)

    def _why(self, record: Mapping[str, Any]) -> str:
        figures, reason, detail = record["figures"], record["reason"], record["detail"]
        if reason in (Reason.QUOTA_EXCEEDED, Reason.RATE_LIMITED, Reason.WITHIN_QUOTA) and "limit" in figures:
            limit = _limit_of(detail)
            return f"{figures['used']} of {figures['limit']} used" + (f" ({limit})" if limit else "")
        if reason in _GREYLISTED:
            return f"greylisted, a retry passes after {in_words(int(figures.get('wait', 0)))}"
        meaning = self.meaning(reason)
        sentence = meaning[:1].lower() + meaning[1:] if meaning[:4] != "SPF " else meaning
        return f"{sentence} ({detail})" if detail and (reason in _SPF or reason == Reason.SUSPENDED) else sentence


def _limit_of(detail: str) -> str:
    """Return the limit that a detail names, for people: ``basic, hour`` for ``user:basic/hour+extra:1``."""
    label = _LABEL.fullmatch(detail)
    return label[1].replace("/", ", ") if label else detail


def _explain(record: Mapping[str, Any]) -> str:
    names = ("user", "sender", "recipient", "client", "listener")
    return url("try", **{name: record[name] for name in names}, stage=record["stage"])


def _help(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the actions that help if a decision was wrong."""
    reason, client, sender = record["reason"], record["client"], record["sender"]
    if reason in _GREYLISTED:
        names = {"client": client, "sender": sender, "recipient": record["recipient"]}
        return [("Let it pass now", url("act/pass", **names)), _exempt("client", client, "greylisting")]
    if reason in _SPF and stops(record["action"]):
        return [_exempt("client", client, "spf")]
    if reason == Reason.QUOTA_EXCEEDED and record["user"]:
        user = record["user"]
        return [("Raise", url("act/raise", user=user)), ("Reset", url("act/reset", user=user))]
    if reason == Reason.RATE_LIMITED:
        limit = _RATE_LIMIT.fullmatch(record["detail"])
        return [_exempt("client", client, f"limit:{limit[1]}")] if limit else []
    return []


def _exempt(kind: str, value: str, scope: str) -> tuple[str, str]:
    return f"Exempt this {kind}", url("act/exempt", kind=kind, value=value, scope=scope)
