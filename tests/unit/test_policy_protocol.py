"""The policy protocol: framing, order, limits, timeouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.request import MAX_REQUEST_BYTES
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.slots import PolicySlot
from chapps_tw.postfix.pipeline import DEFER, Pipeline
from chapps_tw.postfix.protocol import Answered, PolicyFactory, PolicyProtocol
from chapps_tw.sockets.turn import Turn
from chapps_tw.state.sqlite.file import MEMORY
from chapps_tw.state.sqlite.store import SqliteState
from tests.support.examples import examples

TURN = 1e-6


class Echo:
    """A policy that answers with the sender, at once or when it is let."""

    name = "Echo"

    def __init__(self) -> None:
        self.hold = False
        self.waiting: list[Deferred[None]] = []

    async def decide(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Decision:
        if self.hold:
            self.waiting.append(Deferred())
            await self.waiting[-1]
        return Decision("REJECT " + request.get("sender"), Reason.NO_USER, self.name)

    explain = decide


def question(sender: str) -> bytes:
    return f"request=smtpd_access_policy\nprotocol_state=RCPT\nsender={sender}\n\n".encode("utf-8", "surrogateescape")


def answers(*senders: str) -> bytes:
    return b"".join(b"action=REJECT %s\n\n" % sender.encode() for sender in senders)


async def unchanged(request: OutboundPPR, decision: Decision) -> Decision:
    return decision


class ProtocolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.echo = Echo()
        self.reported: list[tuple[str, float]] = []
        state = SqliteState(MEMORY, self.clock.seconds, self.clock)
        self.pipeline = Pipeline(
            "test", [PolicySlot(self.echo)], lambda _: None, lambda *_: None, CancelledError, unchanged, state, 2.0
        )
        turn = Turn(self.later)
        self.factory = PolicyFactory(self.pipeline, OutboundPPR, self.report, self.clock.seconds, turn, lambda _: None)
        self.protocol, self.transport = self.connect()

    def report(self, listener: str, answers: Sequence[Answered]) -> None:
        self.reported += [(answer.decision.action, started) for _, answer, started in answers]

    def connect(self) -> tuple[PolicyProtocol, StringTransport]:
        protocol = self.factory.buildProtocol(None)
        assert isinstance(protocol, PolicyProtocol)
        transport = StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def later(self, seconds: float, call: Callable[[], object]) -> IDelayedCall:
        # Unlike the reactor, a Clock does in the same turn what is asked for in it.
        return self.clock.callLater(seconds or TURN, call)

    def test_clients_that_asked_are_remembered_after_they_have_left(self) -> None:
        self.connect()
        self.assertEqual(self.factory.peers, {})
        self.clock.advance(3)
        self.protocol.dataReceived(question("a"))
        self.assertEqual(self.factory.peers, {"192.168.1.1": 3.0})
        self.clock.advance(4)
        self.protocol.dataReceived(question("b"))
        self.protocol.connectionLost()
        self.assertEqual(self.factory.peers, {"192.168.1.1": 7.0})

    def test_each_change_of_the_number_of_connections_is_told(self) -> None:
        told: list[int] = []
        self.factory.changed = lambda: told.append(len(self.factory.connections))
        self.connect()
        self.protocol.connectionLost()
        self.assertEqual(told, [2, 1])

    def test_a_client_that_sends_no_policy_request_has_not_asked(self) -> None:
        self.clock.advance(3)
        self.protocol.dataReceived(b"GET / HTTP/1.1\n\n")
        self.protocol.connectionLost()
        self.assertEqual(self.factory.peers, {})

    def test_of_many_clients_the_last_are_remembered(self) -> None:
        for number in range(100):
            self.factory.note_peer(f"192.0.2.{number}", float(number))
        self.assertEqual(list(self.factory.peers)[:1], ["192.0.2.68"])
        self.assertEqual(len(self.factory.peers), 32)

    def turns(self, most: int = 10_000) -> int:
        """Let the reactor turn until nothing is left for the next turn; returns how often it did."""
        for turn in range(most):
            if not self.clock.getDelayedCalls():
                return turn
            self.clock.advance(TURN)
        raise AssertionError(f"still not done after {most} turns")

    def test_a_request_is_answered_and_the_connection_stays_open(self) -> None:
        self.protocol.dataReceived(question("a"))
        self.turns()
        self.assertEqual(self.transport.value(), answers("a"))
        self.assertFalse(self.transport.disconnecting)
        self.assertEqual(self.reported, [("REJECT a", 0.0)])

    def test_a_request_may_arrive_byte_by_byte(self) -> None:
        for byte in question("a") + question("b"):
            self.protocol.dataReceived(bytes([byte]))
        self.turns()
        self.assertEqual(self.transport.value(), answers("a", "b"))

    def test_pipelined_requests_are_answered_in_order_one_per_turn(self) -> None:
        senders = [str(number) for number in range(8)]
        self.protocol.dataReceived(b"".join(map(question, senders)))
        for number in range(8):
            self.assertEqual(self.transport.value(), answers(*senders[:number]))
            self.clock.advance(TURN)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_fast_client_does_not_starve_others(self) -> None:
        neighbour, transport = self.connect()
        self.protocol.dataReceived(b"a=\n\n" * 16_000)
        neighbour.dataReceived(question("b"))
        self.clock.advance(TURN)
        self.assertEqual(transport.value(), answers("b"))
        self.assertEqual(self.transport.value(), b"action=REJECT\n\n")

    def test_requests_between_two_turns_wait_for_their_own_turn(self) -> None:
        self.protocol.dataReceived(question("a") + question("b"))
        self.clock.advance(TURN)
        self.protocol.dataReceived(question("c"))
        self.assertEqual(self.transport.value(), answers("a"))
        self.turns()
        self.assertEqual(self.transport.value(), answers("a", "b", "c"))

    def test_a_request_waits_for_the_previous_answer(self) -> None:
        self.echo.hold = True
        self.protocol.dataReceived(question("a") + question("b"))
        self.turns()
        self.assertEqual(len(self.echo.waiting), 1)
        self.echo.waiting[0].callback(None)
        self.turns()
        self.assertEqual(self.transport.value(), answers("a"))
        self.echo.waiting[1].callback(None)
        self.turns()
        self.assertEqual(self.transport.value(), answers("a", "b"))

    def test_many_pipelined_requests_do_not_exhaust_the_stack(self) -> None:
        self.protocol.dataReceived(question("x") * 5000)
        self.turns()
        self.assertEqual(self.transport.value().count(b"\n\n"), 5000)

    def test_bytes_that_are_not_utf_8_are_answered(self) -> None:
        self.protocol.dataReceived(question("\udce9"))
        self.turns()
        self.assertEqual(self.transport.value(), b"action=REJECT ?\n\n")

    def test_an_endless_request_closes_the_connection(self) -> None:
        self.protocol.dataReceived(b"a=" + b"x" * MAX_REQUEST_BYTES)
        self.assertTrue(self.transport.disconnected or self.transport.disconnecting)
        self.assertEqual(self.protocol._buffer, b"")

    def test_reading_pauses_while_a_request_is_pending_and_then_resumes(self) -> None:
        self.echo.hold = True
        self.protocol.dataReceived(question("a"))
        self.turns()
        self.protocol.dataReceived(question("b") * 2000)
        self.assertEqual(self.transport.producerState, "paused")
        self.echo.hold = False
        self.echo.waiting[0].callback(None)
        self.turns()
        self.assertEqual(self.transport.value().count(b"action="), 2001)
        self.assertEqual(self.transport.producerState, "producing")

    def test_reading_pauses_for_a_client_that_sends_too_fast(self) -> None:
        for _ in range(3):
            self.protocol.dataReceived(b"a=\n\n" * 16_000)
        self.assertEqual(self.transport.producerState, "paused")
        self.turns(50_000)
        self.assertEqual(self.transport.value().count(b"action="), 48_000)
        self.assertEqual(self.transport.producerState, "producing")

    def test_no_request_is_processed_while_the_client_does_not_read(self) -> None:
        self.protocol.dataReceived(question("a") + question("b"))
        self.protocol.pauseProducing()
        self.turns()
        self.protocol.dataReceived(question("c"))
        self.assertEqual(self.transport.value(), answers("a"))
        self.protocol.resumeProducing()
        self.turns()
        self.assertEqual(self.transport.value(), answers("a", "b", "c"))

    def test_an_invalid_request_is_deferred_and_closes_the_connection(self) -> None:
        self.protocol.dataReceived(b"hello\n\n" + question("a"))
        self.turns()
        self.protocol.dataReceived(question("b"))
        self.turns()
        self.assertEqual(self.transport.value(), f"action={DEFER}\n\n".encode())
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.reported, [])

    def test_an_http_request_is_invalid(self) -> None:
        body = question("a").replace(b"\n", b"\r\n") + question("a") * 2
        for target in (b"/", b"/?a=b", b"/=/"):
            protocol, transport = self.connect()
            head = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1:10225\r\nContent-Type: text/plain\r\n\r\n" % target
            protocol.dataReceived(head + body)
            self.turns()
            self.assertEqual(transport.value(), f"action={DEFER}\n\n".encode())
            self.assertTrue(transport.disconnecting)
        self.assertEqual(self.reported, [])

    def test_invalid_requests_are_counted_and_logged_at_a_limited_rate(self) -> None:
        self.lines: list[str] = []

        def observe(event: LogEvent) -> None:
            if event.get("log_namespace", "").startswith("chapps_tw.postfix.protocol"):
                self.lines.append(formatEvent(event))

        observer: Any = observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for sent in (b"hello\n\n", b"x" * (MAX_REQUEST_BYTES + 1)):
            for _ in range(500):
                self.connect()[0].dataReceived(sent)
        self.assertEqual(self.factory.unreadable, 1000)
        first = "test: 192.168.1.1 sent a line that is not name=value; connection closed"
        self.assertEqual(self.lines[:10], [first] * 10)
        self.assertEqual(len(self.lines), 11)
        self.assertIn("suppressed for up to 60 s", self.lines[10])
        self.clock.advance(61)
        self.connect()[0].dataReceived(b"x" * (MAX_REQUEST_BYTES + 1))
        self.assertEqual(self.lines[11], "990 lines like the following were suppressed")
        end = f"sent {MAX_REQUEST_BYTES + 1} bytes without the end of a request; connection closed"
        self.assertEqual(self.lines[12:], [f"test: 192.168.1.1 {end}"])

    def test_on_failure_answers_after_the_timeout(self) -> None:
        self.echo.hold = True
        self.protocol.dataReceived(question("a"))
        self.turns()
        self.clock.advance(2.0)
        self.factory.cancel_overdue()
        self.assertEqual(self.transport.value(), b"")
        self.clock.advance(0.1)
        self.factory.cancel_overdue()
        self.turns()
        self.assertEqual(self.transport.value(), f"action={DEFER}\n\n".encode())
        self.protocol.dataReceived(question("b"))
        self.assertEqual(self.factory.in_flight, 1)

    def test_a_half_closed_client_gets_its_answers(self) -> None:
        self.echo.hold = True
        self.protocol.dataReceived(question("a"))
        self.turns()
        self.protocol.readConnectionLost()
        self.assertFalse(self.transport.disconnecting)
        self.echo.waiting[0].callback(None)
        self.turns()
        self.assertEqual(self.transport.value(), answers("a"))
        self.assertTrue(self.transport.disconnecting)

    def test_a_half_closed_client_gets_the_answers_of_later_turns(self) -> None:
        self.protocol.dataReceived(question("a") + question("b") + question("c"))
        self.protocol.readConnectionLost()
        self.assertFalse(self.transport.disconnecting)
        self.turns()
        self.assertEqual(self.transport.value(), answers("a", "b", "c"))
        self.assertTrue(self.transport.disconnecting)

    def test_drain_does_not_wait_for_a_client_that_does_not_read(self) -> None:
        self.protocol.dataReceived(question("a") + question("b"))
        self.protocol.pauseProducing()
        self.factory.drain()
        self.turns()
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)

    def test_drain_answers_pending_requests_and_closes_idle_connections(self) -> None:
        idle, idle_transport = self.connect()
        self.echo.hold = True
        self.protocol.dataReceived(question("a"))
        self.turns()
        drained = self.factory.drain()
        self.assertTrue(idle_transport.disconnecting)
        self.assertFalse(self.transport.disconnecting)
        self.echo.waiting[0].callback(None)
        self.turns()
        self.assertEqual(self.transport.value(), answers("a"))
        self.assertTrue(self.transport.disconnecting)
        self.assertNoResult(drained)
        for protocol in (idle, self.protocol):
            protocol.connectionLost()
        self.successResultOf(drained)

    def test_a_decision_is_reported_though_its_client_is_gone_before_the_end_of_the_turn(self) -> None:
        self.echo.hold = True
        self.protocol.dataReceived(question("a"))
        self.turns()
        self.echo.waiting[0].callback(None)
        self.factory.cancel_pending()
        self.protocol.connectionLost()
        self.turns()
        self.assertEqual(self.reported, [("REJECT a", 0.0)])

    def test_nothing_is_decided_if_the_client_is_gone_before(self) -> None:
        self.echo.hold = True
        self.protocol.dataReceived(question("a"))
        self.factory.cancel_pending()
        self.protocol.connectionLost()
        self.turns()
        self.assertEqual((self.echo.waiting, self.reported, self.factory.in_flight), ([], [], 0))

    def test_the_answers_of_a_turn_are_reported_together_and_one_that_fails_closes_its_connection(self) -> None:
        other, transport = self.connect()

        def fail(_: bytes) -> None:
            raise ZeroDivisionError

        self.protocol._send = fail
        self.protocol.dataReceived(question("a"))
        other.dataReceived(question("b"))
        self.assertEqual(self.reported, [])
        self.turns()
        self.assertEqual((transport.value(), self.reported), (answers("b"), [("REJECT b", 0.0)]))
        self.assertTrue(self.transport.disconnected)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_client_that_disconnects_while_it_waits_is_ignored(self) -> None:
        self.echo.hold = True
        self.protocol.dataReceived(question("a"))
        self.turns()
        self.protocol.connectionLost()
        self.echo.waiting[0].callback(None)
        self.assertEqual(self.factory.connections, set())

    @settings(max_examples=examples(50))
    @given(st.lists(st.integers(1, 90), max_size=40))
    def test_answers_do_not_depend_on_the_segmentation(self, cuts: list[int]) -> None:
        self.setUp()
        stream = question("a") + question("b") + question("c")
        for cut in cuts:
            self.protocol.dataReceived(stream[:cut]) if stream[:cut] else None
            stream = stream[cut:]
        self.protocol.dataReceived(stream or b"")
        self.turns()
        self.assertEqual(self.transport.value(), answers("a", "b", "c"))
