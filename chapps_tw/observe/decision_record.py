"""One decision: as it is kept, as a record to read, and as a line of the log."""

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

# Bytes of an entry besides the characters of its texts.
_ENTRY = 1000

# A plain tuple takes less time and room than any object with names.
Entry: TypeAlias = tuple[float, str, str, str, str, str, str, str, str, Decision, str, int]
"""What is kept of a decision: the values that :data:`FIELDS` names."""

FIELDS = (
    "time", "listener", "user", "sender", "recipient", "client", "instance", "queue_id", "stage", "decision", "also",
    "size",
)  # fmt: skip
"""What is where in an entry: as in :class:`Record`, but for the decision, and for ``size``: about how many bytes the
entry takes."""


Values: TypeAlias = tuple[
    float, str, str, str, str, Mapping[str, int | float], str, str, str, str, str, str, str, str, str, str, str
]


class Record(NamedTuple):
    """One decision, as it is logged and shown.

    :ivar time: epoch seconds, to the millisecond.
    :ivar stage: the protocol state that the request came at.
    :ivar shadow: the action that would have been, in shadow mode.
    :ivar source: where what was decided by was read.
    :ivar also: what the policies said whose decisions are in no record of their own.
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


def entry_of(listener: str, user: str, request: PolicyRequest, decision: Decision, now: float, also: str = "") -> Entry:
    """Make the entry of a decision. What comes from the client is shortened.

    :param user: who is sending, as far as that is known.
    :param now: epoch seconds.
    :param also: what policies said that have no entry of their own: ``policy:reason``, with a comma between two.
    """
    get = request.attributes.get
    sender, recipient, client = get("sender", ""), get("recipient", ""), get("client_address", "")
    instance, queue_id, stage = get("instance", ""), get("queue_id", ""), get("protocol_state", "")
    said = f"{decision.action}{decision.shadow}{decision.detail}{also}"
    texts = f"{user}{sender}{recipient}{client}{instance}{queue_id}{stage}{said}"
    # Hardly ever one is too long.
    if len(texts) > MAX_VALUE:
        values = (user, sender, recipient, client, instance, queue_id, stage)
        user, sender, recipient, client, instance, queue_id, stage = (value[:MAX_VALUE] for value in values)
        texts = f"{user}{sender}{recipient}{client}{instance}{queue_id}{stage}{said}"
    # sys.getsizeof tells the same, and takes six times as long.
    size = _ENTRY + texts.__sizeof__()
    return now, listener, user, sender, recipient, client, instance, queue_id, stage, decision, also, size


def as_record(entry: Entry) -> Record:
    """The record of an entry."""
    return Record(*_values(entry))


def _values(entry: Entry) -> Values:
    """What a record of an entry is made of."""
    now, listener, user, sender, recipient, client, instance, queue_id, stage, decision, also, _ = entry
    return (
        round(now, 3), listener, decision.policy, decision.action, decision.reason, decision.figures, user, sender,
        recipient, client, instance, queue_id, stage, decision.shadow, _detail(decision), decision.source, also,
    )  # fmt: skip


def record_of(
    listener: str, user: str, request: PolicyRequest, decision: Decision, now: float, also: str = ""
) -> Record:
    """The record of a decision, given as for :func:`entry_of`."""
    return as_record(entry_of(listener, user, request, decision, now, also))


def _detail(decision: Decision) -> str:
    return f"{decision.detail}; asks for greylisting" if decision.greylist else decision.detail


def as_text(entry: Entry) -> str:
    """A decision as ``name=value`` pairs on one line; a value that needs it is quoted as in JSON."""
    now, listener, user, sender, recipient, client, instance, queue_id, stage, decision, also, _ = entry
    # Of these hardly ever one needs quotes.
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
    """A decision as a JSON object on one line."""
    return _encode(dict(zip(Record._fields, _values(entry), strict=True)))


def loss_as_json(lines: int) -> str:
    """That lines were lost, as a JSON object on one line."""
    return json.dumps({"lost_lines": lines})


def loss_as_text(lines: int) -> str:
    """That lines were lost, in a sentence."""
    return f"{lines} lines of the log were lost"


class Form(NamedTuple):
    """How lines look.

    :ivar line: makes the line of an entry, without a line end.
    :ivar loss: the line that tells how many lines were lost.
    """

    line: Callable[[Entry], str]
    loss: Callable[[int], str]


def _plain(value: str) -> str:
    # Letters of any alphabet stay as they are.
    return value if value.isalnum() or _is_plain(value) else encode_basestring_ascii(value)


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and " " not in value and '"' not in value


@lru_cache(1)
def _second(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))


_MILLISECONDS = [f"{number:03d}" for number in range(1000)]


FORMS: Mapping[str, Form] = {"text": Form(as_text, loss_as_text), "json": Form(as_json, loss_as_json)}
