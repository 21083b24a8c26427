"""How the service is, what it decided, and what it would decide."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime

from chapps_tw.config.settings import ConfigError
from chapps_tw.mail.decision import Reason, stops
from chapps_tw.mail.request import parse_attributes
from chapps_tw.rest import answers
from chapps_tw.rest.models import insight as m
from chapps_tw.rest.models.base import Nothing
from chapps_tw.rest.routing import Raw, Refusal, Reply, Route
from chapps_tw.rest.slices import Slices

CHECK_TIMEOUT = 3.0
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Record(Protocol):
    """A decision, as it was logged."""

    def as_dict(self) -> dict[str, object]:
        """With the keys of :class:`~chapps_tw.rest.answers.Decided`."""


class SequencedRecord(Record, Protocol):
    """A decision that is remembered, which has a sequence number."""

    @property
    def sequence(self) -> int:
        """Numbers rise by one from decision to decision."""


class Explained(NamedTuple):
    """What would be answered.

    :ivar answer: what Postfix would get; it is one of the records.
    :ivar records: what each policy would answer, in the order in which they are asked.
    """

    answer: Record
    records: Sequence[Record]


class Search(Protocol):
    """A look through the last decisions, which goes on as far as it is asked to."""

    @property
    def records(self) -> Iterator[SequencedRecord | None]:
        """With ``None`` for each that is not wanted: a place to pause at.

        Newest first, or oldest first of those after a sequence number.
        """

    @property
    def searched(self) -> int:
        """How many there are."""

    @property
    def since(self) -> float:
        """Epoch seconds of the oldest of them."""

    @property
    def last_sequence(self) -> int:
        """The number of the newest decision that there is."""

    @property
    def dropped(self) -> bool:
        """Whether decisions after the sequence number are missing, or may be."""


Check = Callable[[], Awaitable[object]]
Explain = Callable[[str, Mapping[str, str]], Awaitable[Explained]]
Find = Callable[[Mapping[str, str], int | None], Search]

_EXPLAIN_NOTE = (
    "`answer` is what Postfix would get. A request that has no `protocol_state` is taken for one at RCPT. The header "
    "of SPF is shown for each recipient, though Postfix is given it once for a message."
)
_DECISIONS_NOTE = (
    "Each node remembers its own last 5000 since its start, fewer where they take more than 8 MiB; how far that "
    "reaches back stands in `remarks`. All there ever were are in the log. Addresses of senders and recipients compare "
    "without letter case, and their domains with other than ASCII letters in whatever form; a domain alone, as "
    "`example.com`, stands for all addresses in it.\n\n"
    "To follow the decisions, ask first without `after`, and then repeatedly with `after` set to the `last_sequence` "
    "of the answer before: that gives what has come since, oldest first, each decision once. Where there is more than "
    "`limit`, the next answer goes on from there. `dropped` tells that decisions between are missing: the node has "
    "dropped them since, or was restarted. Each node has numbers of its own."
)


class WrongPasscode(Exception):
    """The passcode is not the one of the configuration, or there is none. Says which."""


class Health:
    """Whether the process, the state store and the database answer.

    :param checks: by name, what returns when that part answers and raises when it does not.
    """

    def __init__(self, checks: Mapping[str, Check], reactor: IReactorTime) -> None:
        self._checks = checks
        self._reactor = reactor

    def routes(self) -> Iterator[Route[Any]]:
        yield Route(
            "GET", "/health", "Whether the process is alive", self.health, answer=answers.Alive, open=True, tag="health"
        )
        yield Route(
            "GET", "/ready", "Whether all that it needs answers", self.ready, answer=answers.Ready,
            other_answers={503: answers.NotReady}, tag="health",
        )  # fmt: skip

    async def health(self, _: Nothing) -> Reply:
        return Reply("alive")

    async def ready(self, _: Nothing) -> Reply:
        parts = await gatherResults([Deferred.fromCoroutine(self._ask(name)) for name in self._checks])
        away = [f"{part['name']}: {part['problem']}" for part in parts if not part["up"]]
        if not away:
            return Reply(parts)
        return Reply(parts, {"detail": "; ".join(away)}, status=503)

    async def _ask(self, name: str) -> dict[str, Any]:
        began = self._reactor.seconds()
        problem = ""
        try:
            await _deferred(self._checks[name]).addTimeout(CHECK_TIMEOUT, self._reactor)
        except TimeoutError:
            problem = f"no answer within {CHECK_TIMEOUT:g} s"
        except Exception as error:
            problem = str(error) or type(error).__name__
        latency = round(self._reactor.seconds() - began, 6)
        return {"name": name, "up": not problem, "latency": latency, "problem": problem}


def _deferred(check: Check) -> Deferred[object]:
    async def ask() -> object:
        return await check()

    return Deferred.fromCoroutine(ask())


class Insight:
    """Explanations, decisions, metrics, and the configuration.

    :param explain: what each policy of a listener (``""``: the first that fits) would answer to the attributes of a
        request, changing nothing; raises ``KeyError`` for a listener that is not there.
    :param find: looks for the records whose fields are as wanted, all or those after a sequence number.
    :param metrics: the text format of Prometheus.
    :param write_config: takes the passcode, writes the configuration and returns the path and remarks;
        raises :class:`WrongPasscode`, and :class:`~chapps_tw.config.settings.ConfigError` when it cannot be written.
    :param encoding: of the requests that Postfix sends.
    :param slices: for long work.
    """

    def __init__(
        self,
        explain: Explain,
        find: Find,
        metrics: Callable[[], bytes],
        write_config: Callable[[str], Awaitable[tuple[str, list[str]]]],
        encoding: str,
        slices: Slices,
    ) -> None:
        self._explain = explain
        self._find = find
        self._metrics = metrics
        self._write_config = write_config
        self._encoding = encoding
        self._slices = slices

    def routes(self) -> Iterator[Route[Any]]:
        yield Route(
            "POST", "/live/explain/", "What each policy would answer now, and why; changes nothing", self.explain,
            m.Question, answers.Explanation, body="attributes", text=self._read_request, errors=(404,), tag="insight",
            note=_EXPLAIN_NOTE,
        )  # fmt: skip
        yield Route(
            "GET", "/live/decisions/", "The last decisions, newest first, or those after one", self.decisions,
            m.DecisionFilter, answers.DecidedList, tag="insight", note=_DECISIONS_NOTE,
        )  # fmt: skip
        yield Route(
            "POST", "/live/config/write/", "Write the effective configuration to its file", self.write, m.Passcode,
            answers.Said, body="passcode", query=False, changes=True, tag="insight",
        )  # fmt: skip
        yield Route(
            "GET", "/metrics", "Metrics for Prometheus", self.metrics, content_type=METRICS_TYPE, tag="insight"
        )  # fmt: skip

    def _read_request(self, body: bytes) -> dict[str, str]:
        """A policy request as Postfix sends it. Raises :class:`~chapps_tw.mail.request.RequestError`."""
        return parse_attributes(body.replace(b"\r\n", b"\n").strip(b"\n"), self._encoding)

    async def explain(self, question: m.Question) -> Reply:
        attributes, remarks = _in_upper_case(question.attributes)
        try:
            answer, records = await self._explain(question.listener, attributes)
        except KeyError:
            raise Refusal(404, f"There is no listener {question.listener}.") from None
        shown = [record.as_dict() for record in records]
        beside = {"answer": answer.as_dict()}
        return Reply(shown, beside, remarks + _about(beside["answer"], shown))

    async def decisions(self, wanted: m.DecisionFilter) -> Reply:
        names = ("user", "sender", "recipient", "client", "instance", "queue_id")
        given = {name: getattr(wanted, name) for name in names if name in wanted.model_fields_set}
        search = self._find(given, wanted.after)
        found = await self._slices.collect(_shown(search), wanted.limit)
        full = len(found) == wanted.limit
        if wanted.after is None:
            last, remarks = search.last_sequence, _about_last(search, wanted.limit if full else 0)
        else:
            last = found[-1].sequence if full else search.last_sequence
            remarks = _about_following(search, last)
        shown = [each.record for each in found]
        return Reply(shown, {"last_sequence": last, "dropped": search.dropped}, remarks)

    async def write(self, given: m.Passcode) -> Reply:
        try:
            path, remarks = await self._write_config(given.passcode)
        except ConfigError as error:
            raise Refusal(503, str(error)) from None
        return Reply(path, remarks=remarks)

    async def metrics(self, _: Nothing) -> Raw:
        return Raw(self._metrics(), METRICS_TYPE)


def _in_upper_case(attributes: Mapping[str, str]) -> tuple[Mapping[str, str], list[str]]:
    """A request with a protocol state as Postfix writes it, and remarks."""
    given = attributes.get("protocol_state", "")
    state = given.upper() or "RCPT"
    if state == given:
        return attributes, []
    remark = f"{given} was taken for {state}." if given else f"It has no protocol_state: {state} was taken."
    return {**attributes, "protocol_state": state}, [remark]


def _about(answer: Mapping[str, object], records: Sequence[Mapping[str, object]]) -> list[str]:
    """What those should know who take every record for an answer."""
    remarks = []
    not_asked = [str(each["policy"]) for each in records[records.index(answer) + 1 :]]
    if not_asked and stops(str(answer["action"])):
        remarks.append(f"Postfix would be answered by {answer['policy']}; not asked: {', '.join(not_asked)}.")
    no_judge = [str(each["policy"]) for each in records if each["reason"] == Reason.STAGE_NOT_JUDGED]
    if no_judge:
        remarks.append(f"{', '.join(no_judge)}: {Reason.STAGE_NOT_JUDGED.meaning}")
    return remarks


class _Shown(NamedTuple):
    """A decision as it is shown."""

    sequence: int
    record: dict[str, object]


def _shown(search: Search) -> Iterator[_Shown | None]:
    for each in search.records:
        yield None if each is None else _Shown(each.sequence, each.as_dict())


def _about_last(search: Search, limit: int) -> list[str]:
    """How far a search reached, and what was left out where it found as many as the limit."""
    if not search.searched:
        return ["This node has decided nothing since it was started."]
    since = datetime.fromtimestamp(search.since, UTC).isoformat(timespec="seconds")
    remarks = [f"Searched: the last {search.searched} decisions of this node, since {since}."]
    if limit:
        remarks.append(f"There may be more: the newest {limit} are shown.")
    return remarks


def _about_following(search: Search, last: int) -> list[str]:
    """What those should know who follow the decisions, and are told those up to a sequence number."""
    remarks = []
    if search.dropped:
        remarks.append("Decisions before these are missing: this node remembers its last, and those since its start.")
    if last < search.last_sequence:
        remarks.append(f"There may be more: ask again with after={last}.")
    return remarks
