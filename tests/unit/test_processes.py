"""Restarts of a process, and the connection between two."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.observe.decision_record import Entry, as_json, as_record, as_text, entry_from, entry_of
from chapps_tw.policies.events import LimitEvent
from chapps_tw.processes.channel import Asked, Channel, ChannelLost, Told
from chapps_tw.processes.link import Link
from chapps_tw.processes.restarts import Restarts
from chapps_tw.processes.workers import Workers
from chapps_tw.sockets.loads import Loads

REASONS = {str(reason): reason for reason in Reason}


def entry(number: int, **attributes: str) -> Entry:
    decision = Decision(
        "REJECT no\udce9", Reason.QUOTA_EXCEEDED, "OutboundQuotaPolicy", {"limit": number, "wait": 1.5}, "detail",
        greylist=True, shadow="DUNNO", source="cache",
    )  # fmt: skip
    request = PolicyRequest({"sender": "jürgen@example.com", "client_address": "192.0.2.1", **attributes})
    return entry_of("outbound", "ann", request, decision, 1790000000.1239, "SPF:spf_pass")


# --- restarts ---


def test_the_first_failure_costs_no_time_and_the_next_ones_cost_more() -> None:
    restarts = Restarts()
    pauses = [restarts.pause(1.0) for _ in range(12)]
    assert pauses[:5] == [0.0, 0.1, 0.2, 0.4, 0.8]
    assert pauses[-2:] == [10.0, 10.0]


def test_a_process_that_ran_for_long_is_started_at_once() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.pause(1.0)
    assert [restarts.pause(100.0), restarts.pause(1.0)] == [0.0, 0.0]


# --- loads ---


def test_a_process_may_accept_if_none_that_runs_has_fewer_connections() -> None:
    loads = Loads.of(3)
    loads.set(0, 5)
    assert loads.is_least(0)
    other = Loads(loads.descriptor)
    other.set(1, 4)
    assert (loads.is_least(0), loads.is_least(1)) == (False, True)
    loads.set(0, 4)
    assert (loads.is_least(0), loads.is_least(1)) == (True, True)
    loads.end(1)
    loads.set(0, 9)
    assert loads.is_least(0)


# --- the connection ---


class Pair:
    """Two ends that are connected."""

    def __init__(self, here: Channel, there: Channel) -> None:
        self._ends = [(here, StringTransport()), (there, StringTransport())]
        for channel, transport in self._ends:
            channel.makeConnection(transport)

    def deliver(self) -> None:
        """Deliver what was sent, until there is nothing more."""
        (here, sent), (there, answered) = self._ends
        while sent.value() or answered.value():
            for channel, transport in ((there, sent), (here, answered)):
                data = transport.value()
                transport.clear()
                channel.dataReceived(data)


def channels(told: Mapping[str, Told], asked: Mapping[str, Asked] = MappingProxyType({})) -> tuple[Channel, Pair]:
    """Return an end of a connection, whose other end is told and asked."""
    here = Channel({}, {})
    return here, Pair(here, Channel(told, asked))


def test_a_message_arrives_with_its_values() -> None:
    found: list[Any] = []
    here, pair = channels({"number": found.append})
    here.tell("number", 7)
    here.tell("number", ["\udce9", {"a": 1.5}])
    pair.deliver()
    assert found == [7, ["\udce9", {"a": 1.5}]]


def test_questions_are_answered_in_any_order() -> None:
    first: Deferred[str] = Deferred()

    async def slow() -> str:
        return await first

    async def quick() -> int:
        return 2

    here, pair = channels({}, {"slow": slow, "quick": quick})
    answers: list[Any] = []
    here.ask("slow").addCallback(answers.append)
    here.ask("quick").addCallback(answers.append)
    pair.deliver()
    first.callback("1")
    pair.deliver()
    assert answers == [2, "1"]


def failed(question: Deferred[Any]) -> str:
    problems: list[Failure] = []
    question.addErrback(problems.append)
    assert problems and problems[0].check(ChannelLost)
    return str(problems[0].value)


def test_a_question_fails_with_what_the_other_end_says() -> None:
    async def fails() -> None:
        raise ValueError("Redis is away")

    here, pair = channels({}, {"fails": fails})
    question = here.ask("fails")
    pair.deliver()
    assert failed(question) == "Redis is away"


def test_questions_fail_when_the_connection_is_lost_and_later() -> None:
    here, _ = channels({})
    question = here.ask("anything")
    here.connectionLost()
    assert failed(question) == "the process has ended"
    assert failed(here.ask("anything")) == "the process is not running"


def test_a_cancelled_question_is_forgotten() -> None:
    async def quick() -> int:
        return 2

    here, pair = channels({}, {"quick": quick})
    question = here.ask("quick")
    question.addErrback(lambda _: None)
    question.cancel()
    pair.deliver()
    here.ask("quick").addCallback(lambda found: answers.append(found))
    answers: list[int] = []
    pair.deliver()
    assert answers == [2]


# --- decisions ---


def test_a_decision_is_the_same_for_all_purposes_when_it_has_arrived() -> None:
    clock, arrived, events = Clock(), list[Entry](), list[LimitEvent]()
    workers = Workers(1, arrived.extend, events.append, lambda *_: None, REASONS, clock)
    link = Link({}, clock)
    pair = Pair(link.channel, Channel({"decisions": workers._decisions, "event": workers._event}, {}))
    sent = [entry(number, recipient=f"r{number}@example.net") for number in range(120)]
    for each in sent:
        link.extend([each])
    for _ in range(10):
        clock.advance(0.02)
    event = LimitEvent("near_limit", "oqp", "ann", "basic", "user", 8, 10, 3600.0, 1790000000.5, "messages")
    link.event(event)
    pair.deliver()
    assert [as_record(each) for each in arrived] == [as_record(each) for each in sent]
    assert [as_text(each) for each in arrived] == [as_text(each) for each in sent]
    assert [as_json(each) for each in arrived] == [as_json(each) for each in sent]
    assert events == [event]


def test_decisions_wait_while_the_main_process_does_not_keep_up_and_the_newest_are_dropped() -> None:
    clock = Clock()
    link = Link({}, clock, max_waiting=10)
    transport = StringTransport()
    link.channel.makeConnection(transport)
    link.channel.pauseProducing()
    for number in range(15):
        link.extend([entry(number)])
    clock.advance(1)
    assert (transport.value(), link.lost) == (b"", 5)
    link.channel.resumeProducing()
    assert transport.value().count(b"quota_exceeded") == 10
    link.extend([entry(99)])
    clock.advance(1)
    assert transport.value().count(b"quota_exceeded") == 11


def test_what_waits_is_passed_on_at_the_end() -> None:
    clock = Clock()
    link = Link({}, clock)
    transport = StringTransport()
    link.channel.makeConnection(transport)
    link.channel.pauseProducing()
    for number in range(120):
        link.extend([entry(number)])
    link.finish()
    assert transport.value().count(b"quota_exceeded") == 120
    assert transport.disconnecting


def test_an_unknown_reason_is_an_error() -> None:
    values = list(as_record(entry(1)))
    values[4] = "nonsense"
    with pytest.raises(KeyError):
        entry_from(values, REASONS)
