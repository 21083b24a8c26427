"""The line that is logged for each answer, and the last of them for whoever asks why."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from json.encoder import encode_basestring_ascii
from time import gmtime, strftime
from typing import NamedTuple

from chapps_tw.decision import Decision
from chapps_tw.names import normal_domain, unicode_domain
from chapps_tw.request import PostfixPolicyRequest

RECENT = 5_000
FLUSH_SECONDS = 0.1
MAX_VALUE = 320

_ADDRESSES = ("sender", "recipient")


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
    detail = f"{decision.detail}; asks for greylisting" if decision.greylist else decision.detail
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
        detail,
        decision.source,
        also,
    )


def beside(sent: Decision, decisions: Sequence[Decision]) -> str:
    """What policies said after the one that answers: ``policy:reason``, with a comma between two; mostly nothing.

    Greylisting lets mail pass, or does not want it, for one, and what is sent is the header that SPF gave it. Those
    before the one that answers are left out: they let the mail through, or it would not have been asked. So are
    those in shadow mode that have a record of their own.

    :param decisions: of every policy that was asked, in order.
    """
    if decisions[-1].policy == sent.policy:
        return ""
    names = [decision.policy for decision in decisions]
    after = decisions[names.index(sent.policy) + 1 :]
    return ",".join([f"{decision.policy}:{decision.reason}" for decision in after if not decision.shadow])


def as_json(record: Record) -> str:
    """One record as a JSON object on one line."""
    return json.dumps(record._replace(time=round(record.time, 3)).as_dict())


def loss_as_json(lines: int) -> str:
    """That lines were lost, as a JSON object on one line."""
    return json.dumps({"lost_lines": lines})


def loss_as_text(lines: int) -> str:
    """That lines were lost, in a sentence."""
    return f"{lines} lines of the decision log were lost"


def as_text(record: Record) -> str:
    """One record as ``name=value`` pairs on one line; a value that needs it is quoted as in JSON."""
    seconds = int(record.time)
    when = f"{_second(seconds)}.{int((record.time - seconds) * 1000):03d}Z"
    figures = "".join([f" {name}={value}" for name, value in record.figures.items()])
    values = [
        record.user,
        record.sender,
        record.recipient,
        record.client,
        record.instance,
        record.queue_id,
        record.stage,
    ]
    # Of these hardly ever one needs it.
    if not _is_plain("".join(values)):
        values = [_plain(value) for value in values]
    user, sender, recipient, client, instance, queue_id, stage = values
    line = (
        f"{when} listener={record.listener} policy={record.policy} action={_plain(record.action)}"
        f" reason={record.reason}{figures}"
        f" user={user} sender={sender} recipient={recipient} client={client} instance={instance}"
        f" queue_id={queue_id} stage={stage}"
    )
    for name in ("shadow", "detail", "source", "also"):
        value = getattr(record, name)
        if value:
            line += f" {name}={_plain(value)}"
    return line


def _plain(value: str) -> str:
    # Letters of any alphabet stay as they are.
    return value if _is_plain(value) or value.isalnum() else encode_basestring_ascii(value)


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and " " not in value and '"' not in value


@lru_cache(1)
def _second(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))


class Found(NamedTuple):
    """What was found among the last decisions.

    :ivar searched: how many were looked through.
    :ivar since: epoch seconds of the oldest of them, 0.0 where there is none.
    """

    records: Sequence[Record]
    searched: int
    since: float


class DecisionLog:
    """Formats records, hands their lines on in batches, and remembers the last ones.

    :param form: :func:`as_text` or :func:`as_json`.
    :param write: takes a batch of lines as bytes; does not block. ``None``: nothing is written.
    :param later: calls a function after some seconds.
    """

    def __init__(
        self,
        form: Callable[[Record], str],
        write: Callable[[bytes], None] | None,
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._form = form
        self._write = write
        self._later = later
        self._lines: list[str] = []
        self.recent: deque[Record] = deque(maxlen=RECENT)

    def add(self, record: Record) -> None:
        """Log one record."""
        self.recent.append(record)
        if self._write is None:
            return
        if not self._lines:
            self._later(FLUSH_SECONDS, self.flush)
        self._lines.append(self._form(record))

    def flush(self) -> None:
        """Hand on what was logged since the last time."""
        lines, self._lines = self._lines, []
        if lines and self._write is not None:
            self._write(("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))

    def find(self, wanted: Mapping[str, str], limit: int) -> Found:
        """The newest records first, whose fields have the values that are wanted.

        Addresses of senders and recipients compare without their case, and their domains in whatever form.
        """
        exact = [(name, value) for name, value in wanted.items() if name not in _ADDRESSES]
        # Only what is wanted is converted: whoever sends mail could make thousands of conversions necessary.
        forms = [(name, _forms(value)) for name, value in wanted.items() if name in _ADDRESSES]
        matching = (
            record
            for record in reversed(self.recent)
            if all(getattr(record, name) == value for name, value in exact)
            and all(getattr(record, name).lower() in values for name, values in forms)
        )
        since = self.recent[0].time if self.recent else 0.0
        return Found(list(islice(matching, limit)), len(self.recent), since)


def _forms(address: str) -> frozenset[str]:
    """The ways to write an address in lower case: its domain as it is, as A-labels and as U-labels."""
    lower = address.lower()
    local, at, domain = lower.rpartition("@")
    name = normal_domain(domain)
    return frozenset((lower, f"{local}{at}{name}", f"{local}{at}{unicode_domain(name)}") if name else (lower,))
