"""The page: what happens now, and the live feed."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Mapping

from twisted.internet.threads import deferToThread

from chapps_tw.interfaces.events import Event
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.observe.decision_record import entry_of
from chapps_tw.observe.decision_ring import DecisionRing
from chapps_tw.ui.feed import MAX_SHOWN, MAX_STREAMS
from tests.support.history import record
from tests.support.page_case import PageTestCase, Visitor, text_of
from tests.support.servers.common import HANGS

PASS = Decision("DUNNO", Reason.WITHIN_QUOTA, "OutboundQuotaPolicy")
REFUSE = Decision("REJECT no", Reason.QUOTA_EXCEEDED, "OutboundQuotaPolicy")


class Listener:
    """A browser that listens to a feed."""

    def __init__(self, port: int, cookie: str, query: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), HANGS)
        head = f"GET /ui/now/feed?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n\r\n"
        self._socket.sendall(head.encode())
        self.received = b""

    def read_until(self, *awaited: str) -> str:
        """Return all that was received, once it contains some texts, or the end. Blocks."""
        while not all(each.encode() in self.received for each in awaited):
            part = self._socket.recv(65536)
            if not part:
                break
            self.received += part
        return self.received.decode()

    def close(self) -> None:
        self._socket.close()


class NowTestCase(PageTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ring = self.node.decisions = DecisionRing()

    def decided(self, decision: Decision = PASS, user: str = "ann", **attributes: str) -> None:
        request = PolicyRequest({"protocol_state": "RCPT", **attributes})
        entry = entry_of("outbound", user, request, decision, time.time())
        self.ring.extend([entry])
        self.rates.extend([entry])
        self.node.requests.add("outbound", request, time.time())

    def listener(self, visitor: Visitor, query: str = "") -> Listener:
        listener = Listener(self.node.port, visitor.cookie, query)
        self.addCleanup(listener.close)
        return listener

    async def hears(self, listener: Listener, *texts: str) -> str:
        heard: str = await deferToThread(listener.read_until, *texts)
        for each in texts:
            self.assertIn(each, heard)
        return heard


class NowTests(NowTestCase):
    async def test_numbers_reasons_dependencies_and_listeners_are_shown(self) -> None:
        visitor = await self.visitor("read")
        self.decided()
        self.decided(REFUSE, sasl_username="ann")
        self.node.peers = {"192.0.2.25": time.time()}
        self.node.warnings = ["It was not <b>applied</b>"]
        await self.says(
            visitor, "/ui/", "2 decisions in the last hour", "1 of them stopped mail 50.0 %", "quota exceeded 1",
            "Nodes", "mx2",
            "State works", "Database works", "outbound at RCPT, 1 with login, 1 without, by 192.0.2.25",
            "It was not <b>applied</b> asked just now",
            "greylisting not asked since the start",
        )  # fmt: skip

    async def test_the_chart_has_a_point_for_each_ten_seconds(self) -> None:
        visitor = await self.visitor("read")
        answer = await visitor.get("/ui/now/rates")
        times, decisions, stopped = json.loads(answer.body)
        self.assertEqual((len(times), len(decisions), len(stopped)), (359, 359, 359))
        self.assertEqual({later - earlier for earlier, later in itertools.pairwise(times)}, {10})

    async def test_who_is_near_a_limit_and_who_sends_most(self) -> None:
        visitor = await self.visitor("read")
        self.node.history.keep(*(record(time=time.time() - 60, user="ann", instance=str(n)) for n in range(3)))
        await self.says(visitor, "/ui/now/top?since=1h", "ann 3 1 1 0.0 %")
        await self.says(visitor, "/ui/now/top?since=forever", "ann 3")
        await self.says(visitor, "/ui/now/near", "Nobody.")
        await self.says(visitor, "/ui/now/events", "Nothing has happened.")
        found = [Event("at_limit", time.time(), "ann", "10 of 10, user limit basic"), Event("node_started", 1e9, "mx1")]
        found.append(Event("node_stopped", time.time(), "mx2"))
        await self.node.book.add_events("mx1", found)
        await self.says(visitor, "/ui/now/events", "at limit ann 10 of 10, user limit basic , noticed by mx1 just now")
        await self.says(visitor, "/ui/now/events", "node stopped mx2 noticed by mx1 just now")


class FeedTests(NowTestCase):
    async def test_decisions_are_shown_as_they_are_made(self) -> None:
        visitor = await self.visitor("read")
        self.decided(sender="before@example.com")
        listener = self.listener(visitor)
        heard = await self.hears(listener, "before@example.com")
        self.assertIn("Content-Type: text/event-stream", heard)
        self.decided(REFUSE, sender="<img src=x onerror=alert(1)>")
        heard = await self.hears(listener, "Refused")
        self.assertNotIn("<img", heard)

    async def test_the_same_decision_offers_actions_to_those_who_may_act(self) -> None:
        visitors = [await self.visitor(scope) for scope in ("read", "operator")]
        listeners = [self.listener(visitor) for visitor in visitors]
        for each in listeners:
            await self.hears(each, "event: decisions")
        self.decided(REFUSE, sender="a@example.com")
        heard = [await self.hears(each, "a@example.com", "</li>") for each in listeners]
        self.assertEqual(["/ui/act/raise" in each for each in heard], [False, True])

    async def test_a_decision_is_rendered_once_for_all_who_see_it(self) -> None:
        feed, rendered = self.page._feed, list[object]()
        tell = feed._tell

        def count(record: Mapping[str, object], may_act: bool) -> str:
            rendered.append(record["sender"])
            return tell(record, may_act)

        feed._tell = count
        visitor = await self.visitor("read")
        listeners = [self.listener(visitor) for _ in range(3)]
        for each in listeners:
            await self.hears(each, "event: decisions")
        self.decided(sender="a@example.com")
        for each in listeners:
            await self.hears(each, "a@example.com")
        self.assertEqual(rendered, ["a@example.com"])

    async def test_a_filter_chooses_among_all_of_them(self) -> None:
        visitor = await self.visitor("read")
        by_user = self.listener(visitor, "field=user&value=bob")
        by_client = self.listener(visitor, "field=client&value=192.0.2.0/24&stopped=1")
        for each in (by_user, by_client):
            await self.hears(each, "event: decisions")
        self.decided(user="bob", sender="of-bob")
        for number in range(2 * MAX_SHOWN):
            self.decided(sender=f"other{number}", client_address="192.0.2.7")
        self.decided(REFUSE, sender="refused", client_address="192.0.2.7")
        self.assertNotIn("other", await self.hears(by_user, "of-bob"))
        self.assertNotIn("other", await self.hears(by_client, "refused"))
        answer = await visitor.get("/ui/now/feed?field=client&value=nonsense/x")
        self.assertEqual(answer.status, 422, text_of(answer))

    async def test_of_many_in_a_second_some_are_shown_and_the_others_counted(self) -> None:
        visitor = await self.visitor("read")
        listener = self.listener(visitor)
        await self.hears(listener, "event: decisions")
        for number in range(MAX_SHOWN + 7):
            self.decided(sender=f"sender{number}@example.com")
        heard = await self.hears(listener, f"sender{MAX_SHOWN + 6}@example.com", "data: 7\n")
        self.assertNotIn("sender6@example.com", heard)

    async def test_a_feed_ends_with_the_session(self) -> None:
        visitor = await self.visitor("read")
        listener = self.listener(visitor)
        await self.hears(listener, "event: decisions")
        await visitor.post("/ui/logout", {})
        heard: str = await deferToThread(listener.read_until, "0\r\n\r\n")
        self.assertTrue(heard.endswith("0\r\n\r\n"))

    async def test_a_feed_ends_with_the_service(self) -> None:
        visitor = await self.visitor("read")
        listener = self.listener(visitor)
        await self.hears(listener, "event: decisions")
        self.page.stop()
        heard: str = await deferToThread(listener.read_until, "0\r\n\r\n")
        self.assertTrue(heard.endswith("0\r\n\r\n"))

    async def test_the_number_of_feeds_is_bounded_and_those_that_leave_make_room(self) -> None:
        visitor = await self.visitor("read")
        listeners = [self.listener(visitor) for _ in range(MAX_STREAMS)]
        for each in listeners:
            await self.hears(each, "event: decisions")
        self.assertEqual((await visitor.get("/ui/now/feed")).status, 503)
        listeners[0].close()
        answered = ""
        while "200 OK" not in answered:
            answered = await deferToThread(self.listener(visitor).read_until, "\r\n\r\n")
