"""The line that is logged for each answer, in two forms, and what can be read from it again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from time import gmtime, strftime
from typing import NamedTuple

from chapps_tw.mail.decision import Decision
from chapps_tw.mail.request import PostfixPolicyRequest

MAX_VALUE = 320

_PAIR = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|\S*)')


class Record(NamedTuple):
    """One decision, as it is logged and shown.

    :ivar time: epoch seconds.
    :ivar stage: the protocol state that the request came at.
    :ivar shadow: the action that would have been, in shadow mode.
    :ivar source: where what was decided by was read.
    :ivar also: what the policies said whose decisions are in no record of their own, as :func:`beside` tells.
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
        """The record with its figures beside the rest, for JSON."""
        found: dict[str, object] = self._asdict()
        return found


def record_of(
    listener: str, user: str, request: PostfixPolicyRequest, decision: Decision, now: float, also: str = ""
) -> Record:
    """Make the record of a decision. What comes from the client is shortened."""
    get = request.attributes.get
    return Record(
        now,
        listener,
        decision.policy,
        decision.action,
        decision.reason.value,
        decision.figures,
        user[:MAX_VALUE],
        get("sender", "")[:MAX_VALUE],
        get("recipient", "")[:MAX_VALUE],
        get("client_address", "")[:MAX_VALUE],
        get("instance", "")[:MAX_VALUE],
        get("queue_id", "")[:MAX_VALUE],
        get("protocol_state", "")[:MAX_VALUE],
        decision.shadow,
        _detail(decision),
        decision.source,
        also,
    )


def _detail(decision: Decision) -> str:
    return f"{decision.detail}; asks for greylisting" if decision.greylist else decision.detail


def as_text(
    listener: str, user: str, request: PostfixPolicyRequest, decision: Decision, now: float, also: str = ""
) -> str:
    """A decision as ``name=value`` pairs on one line; a value that needs it is quoted as in JSON."""
    get = request.attributes.get
    sender, recipient, client = get("sender", ""), get("recipient", ""), get("client_address", "")
    instance, queue_id, stage = get("instance", ""), get("queue_id", ""), get("protocol_state", "")
    # Of these hardly ever one is too long, or needs quotes.
    together = f"{user}{sender}{recipient}{client}{instance}{queue_id}{stage}"
    if len(together) > MAX_VALUE or not _is_plain(together):
        values = (user, sender, recipient, client, instance, queue_id, stage)
        user, sender, recipient, client, instance, queue_id, stage = (_plain(value[:MAX_VALUE]) for value in values)
    seconds = int(now)
    figures = "".join([f" {name}={value}" for name, value in decision.figures.items()])
    line = (
        f"{_second(seconds)}.{int((now - seconds) * 1000):03d}Z listener={_listener(listener)} policy={decision.policy}"
        f" action={_plain(decision.action)} reason={decision.reason}{figures}"
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


def from_text(line: str) -> Record:
    """What a line that :func:`as_text` made tells; its time to the millisecond."""
    when = line.partition(" ")[0]
    found = {name: json.loads(value) if value[:1] == '"' else value for name, value in _PAIR.findall(line)}
    time, figures = datetime.fromisoformat(when).timestamp(), {}
    for name in tuple(found):
        if name not in _TEXTS:
            value = found.pop(name)
            figures[name] = int(value) if value.lstrip("-").isdigit() else float(value)
    return Record(**{name: found.get(name, "") for name in _TEXTS}, time=time, figures=figures)


_TEXTS = frozenset(Record._fields) - {"time", "figures"}


def as_json(
    listener: str, user: str, request: PostfixPolicyRequest, decision: Decision, now: float, also: str = ""
) -> str:
    """A decision as a JSON object on one line."""
    return json.dumps(record_of(listener, user, request, decision, round(now, 3), also).as_dict())


def from_json(line: str) -> Record:
    """What a line that :func:`as_json` made tells."""
    return Record(**json.loads(line))


def loss_as_json(lines: int) -> str:
    """That lines were lost, as a JSON object on one line."""
    return json.dumps({"lost_lines": lines})


def loss_as_text(lines: int) -> str:
    """That lines were lost, in a sentence."""
    return f"{lines} lines of the log were lost"


class Form(NamedTuple):
    """How lines look.

    :ivar write: makes the line of a decision: listener, user, request, decision, epoch seconds, and what other
        policies said.
    :ivar read: makes a record of a line.
    :ivar value: how a text stands in a line.
    :ivar loss: the line that tells how many lines were lost.
    """

    write: Callable[[str, str, PostfixPolicyRequest, Decision, float, str], str]
    read: Callable[[str], Record]
    value: Callable[[str], str]
    loss: Callable[[int], str]


def _plain(value: str) -> str:
    # Letters of any alphabet stay as they are.
    return value if _is_plain(value) or value.isalnum() else encode_basestring_ascii(value)


# There are few, and each is a name that an admin has thought of.
_listener = lru_cache(64)(_plain)


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and " " not in value and '"' not in value


@lru_cache(1)
def _second(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))


FORMS: Mapping[str, Form] = {
    "text": Form(as_text, from_text, _plain, loss_as_text),
    "json": Form(as_json, from_json, encode_basestring_ascii, loss_as_json),
}
