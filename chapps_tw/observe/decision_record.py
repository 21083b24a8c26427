"""Representations of a decision: entry of the ring, record for the API, line of the log."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from time import gmtime, strftime
from typing import Any, NamedTuple, TypeAlias

from chapps_tw.mail.decision import Decision, ReasonCode
from chapps_tw.mail.request import PolicyRequest

MAX_VALUE = 320
"""Values from outside are cut to so many characters."""

# A plain tuple needs less time and memory than a named one, and six short texts less than the request that has them.
Entry: TypeAlias = tuple[float, str, str, str, str, str, str, str, str, Decision, str]
"""A decision about a request: epoch seconds, listener, user (``""`` if unknown), sender, recipient, client, instance,
queue id, stage, decision, and decisions of policies that have no entry of their own (``policy:reason`` separated by
commas). Texts from outside are cut to :data:`MAX_VALUE`. A record is made when it is needed."""

_ATTRIBUTES = ("sender", "recipient", "client_address", "instance", "queue_id", "protocol_state")

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
    """Return the entry of a decision.

    :param user: the user who sends, ``""`` if unknown.
    :param now: epoch seconds.
    :param also: decisions of policies that have no entry of their own, as ``policy:reason`` separated by commas.
    """
    sender, recipient, client, instance, queue_id, stage = said = request.select(_ATTRIBUTES)
    # Fast path: they are rarely long.
    if len(user) + sum(map(len, said)) > MAX_VALUE:
        user, sender, recipient, client, instance, queue_id, stage = [each[:MAX_VALUE] for each in (user, *said)]
    return now, listener, user, sender, recipient, client, instance, queue_id, stage, decision, also


def as_record(entry: Entry) -> Record:
    """Return the record of an entry."""
    return Record(*values_of(entry))


def values_of(entry: Entry) -> Values:
    """Return the values of the record of an entry, in the order of the fields of :class:`Record`."""
    now, listener, user, sender, recipient, client, instance, queue_id, stage, decision, also = entry
    return (
        round(now, 3), listener, decision.policy, decision.action, decision.reason, decision.figures, user, sender,
        recipient, client, instance, queue_id, stage, decision.shadow, _detail(decision), decision.source, also,
    )  # fmt: skip


def entry_from(values: Sequence[Any], reasons: Mapping[str, ReasonCode]) -> Entry:
    """Return an entry that has this record.

    :param values: those of :func:`values_of`, as JSON returns them.
    :param reasons: all reasons, by code.
    :raises KeyError: if a reason is unknown.
    """
    record = Record(*values)
    decision = Decision(
        record.action, reasons[record.reason], record.policy, record.figures, record.detail, shadow=record.shadow,
        source=record.source,
    )  # fmt: skip
    return (
        record.time, record.listener, record.user, record.sender, record.recipient, record.client, record.instance,
        record.queue_id, record.stage, decision, record.also,
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
    now, listener, user, sender, recipient, client, instance, queue_id, stage, decision, also = entry
    # Fast path: they rarely need quotes.
    if not _is_plain(f"{user}{sender}{recipient}{client}{instance}{queue_id}{stage}"):
        values = (user, sender, recipient, client, instance, queue_id, stage)
        user, sender, recipient, client, instance, queue_id, stage = map(_plain, values)
    figures = "".join([f" {name}={value}" for name, value in decision.figures.items()])
    line = (
        f"{_moment(now)} listener={_plain(listener)}"
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
    return _encode(dict(zip(Record._fields, values_of(entry), strict=True)))


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


# The decisions of a turn of the reactor have the same time.
@lru_cache(1)
def _moment(now: float) -> str:
    seconds = int(now)
    return f"{_second(seconds)}.{int((now - seconds) * 1000):03d}Z"


FORMATS: Mapping[str, LogFormat] = {
    "text": LogFormat(as_text, loss_as_text),
    "json": LogFormat(as_json, loss_as_json),
}
