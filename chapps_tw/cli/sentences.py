"""Decisions and limits as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from chapps_tw.cli.output import local, plain
from chapps_tw.mail.decision import effect, in_words

# In epoch seconds, the year 5000: what does not end by itself.
NEVER: Final = 95617584000

Record = Mapping[str, Any]


def verdict(record: Record) -> str:
    """Return what became of the mail: ``Refused``, ``Deferred``, ``Discarded``, ``Held`` or ``Accepted``."""
    return effect(record["action"])


def clock(seconds: float, now: float) -> str:
    """Return a time of today as ``14:05``, another with its date."""
    moment = datetime.fromtimestamp(seconds)
    is_today = moment.date() == datetime.fromtimestamp(now).date()
    return moment.strftime("%H:%M") if is_today else local(seconds)


def decision(record: Record, now: float, meanings: Mapping[str, str]) -> str:
    """Return a decision as a sentence, with when and why.

    :param meanings: by reason code.
    """
    when = f"{in_words(max(0, int(now - record['time'])))} ago"
    return f"{verdict(record)} {when}, {about(record)}: {because(record, now, meanings)}"


def because(record: Record, now: float, meanings: Mapping[str, str]) -> str:
    """Return why it was decided so, with the figures."""
    figures, code = record["figures"], record["reason"]
    meaning = meanings.get(code, code)
    later = ""
    if "`wait`" in meaning and "wait" in figures:
        meaning = meaning.partition(";")[0] + "."
        later = f" Again at {clock(record['time'] + figures['wait'], now)}."
    used = f" ({plain(figures['used'])} of {plain(figures['limit'])} used)" if {"used", "limit"} <= set(figures) else ""
    detail = f" [{plain(record['detail'])}]" if record["detail"] else ""
    shadow = f" (shadow mode: it would have been {plain(record['shadow'])})" if record["shadow"] else ""
    return f"{meaning.removesuffix('.')}{used}.{later}{detail}{shadow}"


def about(record: Record) -> str:
    """Return which mail it was."""
    sender = plain(record["sender"]) or "the null sender"
    user = plain(record["user"])
    who = f"{user}, as {sender}" if user and user != sender else sender
    recipient = f" to {plain(record['recipient'])}" if record["recipient"] else ""
    client = f" from {plain(record['client'])}" if record["client"] and not user else ""
    return f"{who}{recipient}{client}"


def limit(row: Record, now: float) -> str:
    """Return a limit and what is used of it, with a bar."""
    amount, used = row["amount"], row["used"]
    name = plain(row["name"] or row["quota"])
    if amount is None:
        return f"{'':22} {name}: {used} {row['unit']} in {in_words(int(row['window']))}, unlimited"
    share = min(1.0, used / amount) if amount else 1.0
    bar = f"[{'#' * round(20 * share):20}]"
    room = f", room at {clock(row['room_at'], now)}" if row["room_at"] else ""
    level = "" if row["level"] == "user" else f" ({row['level']})"
    window = in_words(int(row["window"]))
    return f"{bar} {name}{level}: {used} of {amount} {row['unit']} in {window}, {row['left']} left{room}"


def override(row: Record, now: float) -> str:
    """Return an override in force."""
    until = clock(row["until"], now) if row["until"] < NEVER else "it is released"
    what = {"suspended": "Suspended", "unlimited": "Unlimited"}.get(row["kind"], f"{row['value']} more")
    only = f" of {plain(row['limit'])}" if row["limit"] else ""
    reason = f": {plain(row['reason'])}" if row["reason"] else ""
    return f"{what}{only} until {until}{reason}."
