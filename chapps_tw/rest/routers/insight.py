"""Health, decisions, explanations and metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime

from chapps_tw.interfaces.configuration import Loaded
from chapps_tw.mail.decision import Reason, stops
from chapps_tw.mail.request import parse_attributes
from chapps_tw.rest import answers
from chapps_tw.rest.models import insight as m
from chapps_tw.rest.models.base import Nothing
from chapps_tw.rest.moments import with_iso
from chapps_tw.rest.routers.configuration import shown
from chapps_tw.rest.routing import Raw, Refusal, Reply, Route
from chapps_tw.rest.slices import Slices

CHECK_TIMEOUT = 3.0
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Record(Protocol):
    """A logged decision."""

    def as_dict(self) -> dict[str, object]:
        """Return its fields, as in :class:`~chapps_tw.rest.answers.Decided`."""


class SequencedRecord(Record, Protocol):
    """A decision in the decision ring."""

    @property
    def sequence(self) -> int:
        """The sequence number: one higher for each decision."""


class Explained(NamedTuple):
    """The result of an explanation.

    :ivar answer: the decision that Postfix would get; one of the records.
    :ivar records: the decision of each policy, in the order in which they run.
    """

    answer: Record
    records: Sequence[Record]


class Search(Protocol):
    """A search of the decision ring, which proceeds as its iterator is consumed."""

    @property
    def records(self) -> Iterator[SequencedRecord | None]:
        """The matching records, and ``None`` for each other record, where the caller may pause.

        Newest first; with a sequence number, oldest first.
        """

    @property
    def searched(self) -> int:
        """The number of records that are searched."""

    @property
    def since(self) -> float:
        """The time of the oldest of them, in epoch seconds."""

    @property
    def last_sequence(self) -> int:
        """The sequence number of the newest decision."""

    @property
    def dropped(self) -> bool:
        """Whether decisions after the given sequence number are, or may be, missing."""


Check = Callable[[], Awaitable[object]]
Explain = Callable[[str, Mapping[str, str]], Awaitable[Explained]]
Find = Callable[[Mapping[str, str], int | None], Search]

_EXPLAIN_NOTE = (
    "`answer` is what Postfix would get. Without `protocol_state`, RCPT is assumed. The SPF header is shown for each "
    "recipient, although Postfix gets it only once per message."
)
_DECISIONS_NOTE = (
    "Each node keeps its last 5000 decisions since its start, fewer if they take more than 16 MiB; `remarks` says how "
    "far back they go. The log has all decisions. Sender and recipient addresses are case-insensitive, and their "
    "internationalized domains match as U-labels and A-labels; a domain, such as `example.com`, matches all addresses "
    "in it.\n\n"
    "To follow the decisions, first omit `after`, then repeatedly set it to the `last_sequence` of the previous "
    "answer: each answer has the decisions made since, oldest first, each decision once. If there are more than "
    "`limit`, the next answer continues from there. `dropped` is true if decisions in between are missing, because "
    "the node dropped them or was restarted. Sequence numbers of different nodes are unrelated."
)


class Health:
    """Health checks: the process, the state store and the database.

    :param checks: a check by name of the part; it returns if the part works, and raises if not.
    :param loaded: returns the configuration in force.
    """

    def __init__(self, checks: Mapping[str, Check], reactor: IReactorTime, loaded: Callable[[], Loaded]) -> None:
        self._checks = checks
        self._reactor = reactor
        self._loaded = loaded

    def routes(self) -> Iterator[Route[Any]]:
        yield Route(
            "GET",
            "/health",
            "Check that the process is alive",
            self.health,
            answer=answers.Alive,
            open=True,
            tag="health",
        )
        yield Route(
            "GET", "/ready", "Check that everything the service needs is available", self.ready, answer=answers.Ready,
            other_answers={503: answers.NotReady}, open_ready=True, tag="health",
            note="With `[API] open_ready`, loopback addresses need no token.",
        )  # fmt: skip

    async def health(self, _: Nothing) -> Reply:
        return Reply("alive")

    async def ready(self, _: Nothing) -> Reply:
        parts = await gatherResults([Deferred.fromCoroutine(self._ask(name)) for name in self._checks])
        problems = [f"{part['name']}: {part['problem']}" for part in parts if not part["up"]]
        beside = {"configuration": shown(self._loaded())}
        if not problems:
            return Reply(parts, beside)
        return Reply(parts, {"detail": "; ".join(problems), **beside}, status=503)

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
    """Explanations, decisions and metrics.

    :param explain: takes a listener (``""``: the first that accepts the request) and the attributes of a request;
        returns what each policy would decide. Changes nothing. Raises ``KeyError`` if the listener does not exist.
    :param find: searches for records with the given fields, all or only those after a sequence number.
    :param metrics: returns the metrics in the text format of Prometheus.
    :param encoding: of the requests that Postfix sends.
    :param slices: for long work.
    """

    def __init__(
        self,
        explain: Explain,
        find: Find,
        metrics: Callable[[], Awaitable[bytes]],
        encoding: str,
        slices: Slices,
    ) -> None:
        self._explain = explain
        self._find = find
        self._metrics = metrics
        self._encoding = encoding
        self._slices = slices

    def routes(self) -> Iterator[Route[Any]]:
        yield Route(
            "POST", "/live/explain/", "Show what each policy would decide now, and why; changes nothing", self.explain,
            m.Explain, answers.Explanation, body="attributes", text=self._read_request,
            text_pattern=r"^[a-z_]+=[^\u0000\n]*\n$", errors=(404,), tag="insight",
            note=_EXPLAIN_NOTE,
        )  # fmt: skip
        yield Route(
            "GET", "/live/decisions/", "List the last decisions, or those after a sequence number",
            self.decisions, m.DecisionFilter, answers.DecidedList, tag="insight", note=_DECISIONS_NOTE,
        )  # fmt: skip
        yield Route(
            "GET", "/metrics", "Metrics for Prometheus", self.metrics, content_type=METRICS_TYPE, tag="insight"
        )  # fmt: skip

    def _read_request(self, body: bytes) -> dict[str, str]:
        """Parse a policy request as Postfix sends it. Raises :class:`~chapps_tw.mail.request.RequestError`."""
        return parse_attributes(body.replace(b"\r\n", b"\n").strip(b"\n"), self._encoding)

    async def explain(self, query: m.Explain) -> Reply:
        attributes, remarks = _with_protocol_state(query.attributes)
        try:
            answer, records = await self._explain(query.listener, attributes)
        except KeyError:
            raise Refusal(404, f"There is no listener {query.listener}.") from None
        shown = [_as_shown(record) for record in records]
        beside = {"answer": _as_shown(answer)}
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

    async def metrics(self, _: Nothing) -> Raw:
        return Raw(await self._metrics(), METRICS_TYPE)


def _with_protocol_state(attributes: Mapping[str, str]) -> tuple[Mapping[str, str], list[str]]:
    """Return the attributes with a protocol state as Postfix writes it, and remarks."""
    given = attributes.get("protocol_state", "")
    state = given.upper() or "RCPT"
    if state == given:
        return attributes, []
    remark = (
        f"protocol_state {given} was read as {state}." if given else f"protocol_state is missing: {state} is assumed."
    )
    return {**attributes, "protocol_state": state}, [remark]


def _about(answer: Mapping[str, object], records: Sequence[Mapping[str, object]]) -> list[str]:
    """Return remarks for clients that take every record for an answer."""
    remarks = []
    not_run = [str(each["policy"]) for each in records[records.index(answer) + 1 :]]
    if not_run and stops(str(answer["action"])):
        remarks.append(f"Postfix would get the answer of {answer['policy']}. Policies not run: {', '.join(not_run)}.")
    skipped = [str(each["policy"]) for each in records if each["reason"] == Reason.STAGE_NOT_JUDGED]
    if skipped:
        remarks.append(f"{', '.join(skipped)}: {Reason.STAGE_NOT_JUDGED.meaning}")
    return remarks


class _Shown(NamedTuple):
    """A decision as the API shows it."""

    sequence: int
    record: dict[str, object]


def _shown(search: Search) -> Iterator[_Shown | None]:
    for each in search.records:
        yield None if each is None else _Shown(each.sequence, _as_shown(each))


def _as_shown(record: Record) -> dict[str, Any]:
    return with_iso(record.as_dict(), "time")


def _about_last(search: Search, limit: int) -> list[str]:
    """Return remarks on how far a search reached, and whether there may be more than ``limit``; 0 if there are not."""
    if not search.searched:
        return ["This node has made no decisions since its start."]
    since = datetime.fromtimestamp(search.since, UTC).isoformat(timespec="seconds")
    remarks = [f"Searched: the last {search.searched} decisions of this node, since {since}."]
    if limit:
        remarks.append(f"There may be more: the newest {limit} are shown.")
    return remarks


def _about_following(search: Search, last: int) -> list[str]:
    """Return remarks for a client that follows the decisions, and gets those up to ``last``."""
    remarks = []
    if search.dropped:
        remarks.append("Earlier decisions are missing: this node keeps only its last ones since its start.")
    if last < search.last_sequence:
        remarks.append(f"There may be more: repeat with after={last}.")
    return remarks
