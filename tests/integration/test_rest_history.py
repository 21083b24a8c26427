"""The routes of the history over a real socket."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from chapps_tw.interfaces.history import HistoryUnavailable
from tests.integration.test_rest_book import BookTestCase
from tests.support.history import MOMENT, REFUSAL, record


class HistoryTests(BookTestCase):
    async def found(self, query: str = "") -> Any:
        return (await self.expect(200, "GET", f"/history/{query}")).json

    def keep_three(self) -> None:
        self.node.history.keep(record(queue_id="A"), record(time=MOMENT + 1, queue_id="B", user="", **REFUSAL))
        self.node.history.keep(record(time=MOMENT + 2, queue_id="C", client="2001:db8::1"), node="mx2")

    async def test_a_decision_is_shown_as_in_the_log_with_its_node_and_both_forms_of_its_time(self) -> None:
        self.node.history.keep(record(time=MOMENT + 0.25))
        answer = await self.found()
        [decision] = answer["response"]
        self.assertRegex(decision.pop("id"), "^[0-9a-f]{16}$")
        self.assertEqual(decision, {
            "time": MOMENT + 0.25, "time_iso": "2026-09-21T14:00:00.250Z", "node": "mx1", "listener": "outbound",
            "policy": "OutboundQuotaPolicy", "action": "DUNNO", "refused": False, "reason": "within_quota",
            "figures": {"limit": 5, "used": 2}, "user": "ann", "sender": "ann@example.com",
            "recipient": "bob@example.net", "client": "192.0.2.7", "instance": "1a2b.3c", "queue_id": "4F5D",
            "stage": "RCPT", "shadow": "", "detail": "", "source": "cache", "also": "",
        })  # fmt: skip
        self.assertEqual((answer["next"], answer["remarks"]), (None, []))

    async def test_decisions_are_filtered_and_paged(self) -> None:
        self.keep_three()
        for query, found in (
            ("", "CBA"),
            ("?user=ANN", "CA"),
            ("?sender=%40EXAMPLE.com&node=mx1", "BA"),
            ("?recipient=bob", "CBA"),
            ("?client=192.0.2.0/24", "BA"),
            ("?client=192.0.2.7&refused=true", "B"),
            ("?client=%5B2001:db8::1%5D", "C"),
            ("?client=unknown", ""),
            ("?refused=1", "B"),
            ("?queue_id=A&instance=1a2b.3c&listener=outbound&policy=OutboundQuotaPolicy", "A"),
            ("?reason=quota_exceeded&action=reject", "B"),
            (f"?since={int(MOMENT)}&until={int(MOMENT) + 2}", "BA"),
            ("?since=2026-09-21T14:00:02Z", "C"),
            ("?until=0", ""),
            ("?limit=2", "CB"),
        ):
            self.assertEqual("".join(each["queue_id"] for each in (await self.found(query))["response"]), found, query)
        page = await self.found("?limit=2")
        last = await self.found(f"?limit=2&before={page['next']}")
        self.assertEqual([each["queue_id"] for each in last["response"]], ["A"])
        self.assertEqual(page["next"], page["response"][-1]["id"])
        self.assertIsNone(last["next"])

    async def test_a_wrong_value_is_refused_with_what_is_expected(self) -> None:
        for query, expected in (
            ("client=192.0.2.0/33", "must be an IPv4 or IPv6 address or network, as 192.0.2.0/24"),
            ("client=example.com", "must be an IPv4 or IPv6 address or network, as 192.0.2.0/24"),
            ("sender=@a@b", "must be an address, a domain as @example.com, or a part of an address"),
            ("queue_id=4F-5D", "must be a queue id of letters and digits"),
            ("instance=a b", "must be an instance as Postfix sends it"),
            ("reason=not there", "must be a reason code of letters, digits and underscores"),
            ("action=REJECT no", "must be the first word of an action, as REJECT or 450"),
            ("before=1x", "must be `next` of the page before"),
            ("refused=yes", "must be true or false"),
            ("limit=1001", "must be at most 1000"),
            ("from=1h", "is not a known parameter"),
        ):
            answer = await self.expect(422, "GET", f"/history/?{quote(query, safe='=&/')}")
            self.assertEqual([each["msg"] for each in answer.detail], [expected], query)
        answer = await self.expect(422, "GET", "/history/counts/?by=month")
        self.assertEqual(answer.detail[0]["msg"], "must be one of hour, day, user, reason, client_network")
        await self.expect(422, "GET", "/history/counts/")

    async def test_an_empty_time_finds_nothing_and_says_so(self) -> None:
        self.keep_three()
        for path in ("/history/?", "/history/counts/?by=user&"):
            answer = (await self.expect(200, "GET", f"{path}since=1h&until=2h")).json
            self.assertEqual(answer["response"], [])
            self.assertEqual(answer["remarks"], ["There is no time between since and until."])

    async def test_decisions_are_counted(self) -> None:
        self.keep_three()
        answer = (await self.expect(200, "GET", "/history/counts/?by=user")).json
        self.assertEqual(answer["response"], [
            {"key": "ann", "start": None, "start_iso": None, "decisions": 2, "refused": 0, "refused_share": 0.0,
             "senders": 1, "recipients": 1},
            {"key": "", "start": None, "start_iso": None, "decisions": 1, "refused": 1, "refused_share": 1.0,
             "senders": None, "recipients": None},
        ])  # fmt: skip
        self.assertEqual((answer["counted_since"], answer["remarks"]), (None, []))
        [hour] = (await self.expect(200, "GET", "/history/counts/?by=hour&user=ann")).response
        self.assertEqual((hour["start"], hour["start_iso"], hour["key"]), (MOMENT, "2026-09-21T14:00:00.000Z", ""))

    async def test_a_search_without_time_says_how_far_it_got(self) -> None:
        self.keep_three()
        self.patch(self.node.history.reader, "_reactor", _Hasty(self.node.history.reader._reactor))
        self.node.history.store._part_rows = 1
        self.node.history.keep(record(time=MOMENT + 3, queue_id="D"))
        page = await self.found("?recipient=bob")
        self.assertEqual([each["queue_id"] for each in page["response"]], ["D"])
        self.assertEqual(page["remarks"], ["Searched back to 2026-09-21T14:00:02.000Z: the next page continues there."])
        rest = await self.found(f"?recipient=bob&before={page['next']}")
        self.assertEqual([each["queue_id"] for each in rest["response"]], ["C", "B", "A"])
        counted = (await self.expect(200, "GET", "/history/counts/?by=reason")).json
        self.assertEqual(counted["counted_since"], MOMENT + 2)
        self.assertEqual(counted["remarks"], ["Counted back to 2026-09-21T14:00:02.000Z: there was no time for more."])

    async def test_an_unavailable_history_is_a_503(self) -> None:
        async def fail(*_: object) -> None:
            raise HistoryUnavailable("The history is unavailable: no room")

        self.patch(self.node.history.reader, "search", fail)
        answer = await self.expect(503, "GET", "/history/")
        self.assertEqual(answer.detail, "The history is unavailable: no room")

    async def test_a_read_only_token_may_search(self) -> None:
        token = self.node.tokens.create("desk", "read", 1.0)
        await self.expect(200, "GET", "/history/", token=token)
        await self.expect(401, "GET", "/history/", token="")


class _Hasty:
    """A reactor whose clock passes each deadline at once."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def seconds(self) -> float:
        self._seconds += 100.0
        return self._seconds
