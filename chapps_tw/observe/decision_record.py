"""Representations of a decision: entry of the ring, record for the API, line of the log."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from time import gmtime, strftime
from typing import NamedTuple, TypeAlias

from chapps_tw.mail.decision import Decision
from chapps_tw.mail.request import PolicyRequest

MAX_VALUE = 320

# Overhead of an entry in bytes.
_ENTRY = 1000

# A plain tuple needs less time and memory than a named one.
Entry: TypeAlias = tuple[float, str, str, str, str, str, str, str, str, Decision, str, int]
"""A decision as stored in the ring. The values are named by :data:`FIELDS`."""

_ATTRIBUTES = ("sender", "recipient", "client_address", "instance", "queue_id", "protocol_state")

FIELDS = (
    "time", "listener", "user", "sender", "recipient", "client", "instance", "queue_id", "stage", "decision", "also",
    "size",
)  # fmt: skip
"""Names of the values of an entry, as in :class:`Record`, except the decision itself, and ``size``: the estimated size
of the entry in bytes."""


Values: TypeAlias = tuple[
    float, str, str, str, str, Mapping[str, int | float], str, str, str, str, str, str, str, str, str, str, str
]


class Record(NamedTuple):
    """A decision as logged and returned by the API.

    :ivar time: epoch seconds, rounded to milliseconds.
    :ivar stage: protocol state of the request.
    :ivar shadow: in shadow mode, the action that would have applied otherwise.
    :ivar source: source of the values behind the decision.
    :ivar also: decisions of other policies that have no record of their own.
    """

    time: float
    listener: str
    policy: str
    action: str
    reason: str
    figures: Mapping[str, int | float]
    user: str
    sender: str
    recipient: str
    client: str
    instance: str
    queue_id: str
    stage: str
    shadow: str
    detail: str
    source: str
    also: str

    def as_dict(self) -> dict[str, object]:
        """Return the record as a dictionary for JSON."""
        found: dict[str, object] = self._asdict()
        return found


def entry_of(listener: str, user: str, request: PolicyRequest, decision: Decision, now: float, also: str = "") -> Entry:
    """Return the entry of a decision. Values from the client are truncated.

    :param user: the user who sends, ``""`` if unknown.
    :param now: epoch seconds.
    :param also: decisions of policies that have no entry of their own, as ``policy:reason`` separated by commas.
    """
    sender, recipient, client, instance, queue_id, stage = request.select(_ATTRIBUTES)
    said = f"{decision.action}{decision.shadow}{decision.detail}{also}"
    texts = f"{user}{sender}{recipient}{client}{instance}{queue_id}{stage}{said}"
    # Fast path: values are rarely too long.
    if len(texts) > MAX_VALUE:
        values = (user, sender, recipient, client, instance, queue_id, stage)
        user, sender, recipient, client, instance, queue_id, stage = (value[:MAX_VALUE] for value in values)
        texts = f"{user}{sender}{recipient}{client}{instance}{queue_id}{stage}{said}"
    # sys.getsizeof returns the same and takes six times as long.
    size = _ENTRY + texts.__sizeof__()
    return now, listener, user, sender, recipient, client, instance, queue_id, stage, decision, also, size


def as_record(entry: Entry) -> Record:
    """Return the record of an entry."""
    return Record(*_values(entry))


def _values(entry: Entry) -> Values:
    """Return the values of the record of an entry."""
    now, listener, user, sender, recipient, client, instance, queue_id, stage, decision, also, _ = entry
    return (
        round(now, 3), listener, decision.policy, decision.action, decision.reason, decision.figures, user, sender,
        recipient, client, instance, queue_id, stage, decision.shadow, _detail(decision), decision.source, also,
    )  # fmt: skip


def record_of(
    listener: str, user: str, request: PolicyRequest, decision: Decision, now: float, also: str = ""
) -> Record:
    """Return the record of a decision. Parameters as for :func:`entry_of`."""
    return as_record(entry_of(listener, user, request, decision, now, also))


def _detail(decision: Decision) -> str:
    return f"{decision.detail}; asks for greylisting" if decision.greylist else decision.detail


def as_text(entry: Entry) -> str:
    """Format a decision as ``name=value`` pairs on one line. Values are quoted as in JSON if necessary."""
    now, listener, user, sender, recipient, client, instance, queue_id, stage, decision, also, _ = entry
    # Fast path: these rarely need quotes.
    if not _is_plain(f"{user}{sender}{recipient}{client}{instance}{queue_id}{stage}"):
        values = (user, sender, recipient, client, instance, queue_id, stage)
        user, sender, recipient, client, instance, queue_id, stage = map(_plain, values)
    seconds = int(now)
    figures = "".join([f" {name}={value}" for name, value in decision.figures.items()])
    line = (
        f"{_second(seconds)}.{_MILLISECONDS[int((now - seconds) * 1000)]}Z listener={_plain(listener)}"
        f" policy={decision.policy} action={_plain(decision.action)} reason={decision.reason}{figures}"
        f" user={user} sender={sender} recipient={recipient} client={client} instance={instance}"
        f" queue_id={queue_id} stage={stage}"
    )
    if decision.shadow:
        line += f" shadow={_plain(decision.shadow)}"
    if decision.detail or decision.greylist:
        line += f" detail={_plain(_detail(decision))}"
    if decision.source:
        line += f" source={_plain(decision.source)}"
    return f"{line} also={_plain(also)}" if also else line


_encode = json.JSONEncoder().encode


def as_json(entry: Entry) -> str:
    """Format a decision as a JSON object on one line."""
    return _encode(dict(zip(Record._fields, _values(entry), strict=True)))


def loss_as_json(lines: int) -> str:
    """Format a number of lost lines as a JSON object on one line."""
    return json.dumps({"lost_lines": lines})


def loss_as_text(lines: int) -> str:
    """Format a number of lost lines as a sentence."""
    return f"{lines} lines of the log were lost"


class LogFormat(NamedTuple):
    """A format of the log.

    :ivar line: formats an entry as a line, without the line end.
    :ivar loss: formats a number of lost lines as a line.
    """

    line: Callable[[Entry], str]
    loss: Callable[[int], str]


def _plain(value: str) -> str:
    # Letters of all alphabets are written unquoted.
    return value if value.isalnum() or _is_plain(value) else encode_basestring_ascii(value)


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and " " not in value and '"' not in value


@lru_cache(1)
def _second(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))


_MILLISECONDS = [f"{number:03d}" for number in range(1000)]


FORMATS: Mapping[str, LogFormat] = {
    "text": LogFormat(as_text, loss_as_text),
    "json": LogFormat(as_json, loss_as_json),
}
