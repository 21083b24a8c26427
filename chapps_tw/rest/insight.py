"""How the service is, what it decided, and what it would decide."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from chapps_tw.config import ConfigError
from chapps_tw.request import parse_attributes
from chapps_tw.rest import answers
from chapps_tw.rest import models as m
from chapps_tw.rest.dropping import at_most
from chapps_tw.rest.routing import Raw, Refusal, Reply, Route

CHECK_TIMEOUT = 3.0
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Record(Protocol):
    """A decision, as it was logged."""

    def as_dict(self) -> dict[str, object]:
        """With the keys of :class:`~chapps_tw.rest.answers.Decided`."""


Check = Callable[[], Awaitable[object]]
Explain = Callable[[str, Mapping[str, str]], Awaitable[Sequence[Record]]]
Find = Callable[[Mapping[str, str], int], Iterable[Record]]


class WrongPasscode(Exception):
    """The passcode is not the one of the configuration."""


def read_request(body: bytes) -> dict[str, str]:
    """A policy request as Postfix sends it. Raises :class:`~chapps_tw.request.RequestError`."""
    return parse_attributes(body.replace(b"\r\n", b"\n").strip(b"\n"))


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

    async def health(self, _: m.Nothing) -> Reply:
        return Reply("alive")

    async def ready(self, _: m.Nothing) -> Reply:
        parts = await at_most(len(self._checks), list(self._checks), self._ask)
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
    :param find: the newest records whose fields are as wanted, and at most how many.
    :param metrics: the text format of Prometheus.
    :param write_config: takes the passcode, writes the configuration and returns the path;
        raises :class:`WrongPasscode`, and :class:`~chapps_tw.config.ConfigError` when it cannot be written.
    """

    def __init__(
        self, explain: Explain, find: Find, metrics: Callable[[], bytes], write_config: Callable[[str], Awaitable[str]]
    ) -> None:
        self._explain = explain
        self._find = find
        self._metrics = metrics
        self._write_config = write_config

    def routes(self) -> Iterator[Route[Any]]:
        yield Route(
            "POST", "/live/explain/", "What each policy would answer now, and why; changes nothing", self.explain,
            m.Question, answers.DecidedList, body="attributes", text=read_request, errors=(404,), tag="insight",
        )  # fmt: skip
        yield Route(
            "GET", "/live/decisions/", "The last decisions, newest first", self.decisions, m.DecisionFilter,
            answers.DecidedList, tag="insight",
        )  # fmt: skip
        yield Route(
            "POST", "/live/config/write/", "Write the effective configuration to its file", self.write, m.Passcode,
            answers.Said, body="passcode", query=False, changes=True, tag="insight",
        )  # fmt: skip
        yield Route(
            "GET", "/metrics", "Metrics for Prometheus", self.metrics, content_type=METRICS_TYPE, tag="insight"
        )  # fmt: skip

    async def explain(self, question: m.Question) -> Reply:
        try:
            records = await self._explain(question.listener, question.attributes)
        except KeyError:
            raise Refusal(404, f"There is no listener {question.listener}.") from None
        return Reply([record.as_dict() for record in records])

    async def decisions(self, wanted: m.DecisionFilter) -> Reply:
        names = ("user", "sender", "recipient", "client", "instance", "queue_id")
        given = {name: getattr(wanted, name) for name in names if name in wanted.model_fields_set}
        return Reply([record.as_dict() for record in self._find(given, wanted.limit)])

    async def write(self, given: m.Passcode) -> Reply:
        try:
            return Reply(await self._write_config(given.passcode))
        except ConfigError as error:
            raise Refusal(503, str(error)) from None

    async def metrics(self, _: m.Nothing) -> Raw:
        return Raw(self._metrics(), METRICS_TYPE)
