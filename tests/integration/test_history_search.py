"""Searching and counting the history, on each kind of database."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from chapps_tw.history.counts import counts
from chapps_tw.history.search import search
from chapps_tw.interfaces.history import Group, GroupBy, KeptDecision, Wanted
from tests.support.history import DAY, MOMENT, REFUSAL, record
from tests.support.history_case import InFile, InMariaDB, InPostgreSQL

A_LABELS = "X@xn--bcher-kva.example"

DECISIONS = [
    record(time=MOMENT, queue_id="A", user="ann", sender="ann@example.com", recipient="Bob@Example.NET"),
    record(time=MOMENT + 1, queue_id="B", user="ann", sender="ann@sub.example.com", client="192.0.2.200", **REFUSAL),
    record(time=MOMENT + 2, queue_id="C", user="", sender="", recipient=A_LABELS, client="2001:db8::7"),
    record(time=MOMENT + 3, queue_id="D", user="", sender="s@BÜCHER.example", client="unknown", listener="inbound"),
    record(time=MOMENT + 3600, queue_id="E", user="bob", policy="Other", reason="too_soon", action="450 4.7.1 later"),
    record(time=MOMENT + DAY, queue_id="F", user="bob", instance="9.9.9", client="::ffff:192.0.2.7"),
]


class SearchTests:
    """The subclass names the store."""

    def fill(self: Any) -> None:
        self.keep(*DECISIONS[:3])
        self.keep(*DECISIONS[3:], node="mx2")

    def test_a_decision_is_found_with_all_that_the_log_has(self: Any) -> None:
        odd = record(
            action="PREPEND X: y", figures={"ratio": 1e-07, "most": 1.5e300}, shadow="450 later", also="GRL:passed",
            detail="mailfrom bücher.example", source="cache dns", instance="\udce9\0\x7f", recipient="ß%_\\@ä",
        )  # fmt: skip
        self.keep(odd)
        [found] = self.everything()
        shown = odd._asdict() | {"instance": "\\udce9\x7f", "id": found.id, "node": "mx1", "refused": False}
        self.assertEqual(found, KeptDecision(**shown))
        for part in ("ß%", "_\\@", "%_\\"):
            self.assertEqual(self.found(recipient=part), ["4F5D"], part)
        self.assertEqual(self.found(recipient="a_"), [])

    def test_texts_that_are_too_long_are_cut(self: Any) -> None:
        long = "x" * 9000
        figures = {f"figure{number}": number for number in range(1000)}
        self.keep(record(listener=long, action=f"REJECT {long}", user=long, sender=long, figures=figures))
        [found] = self.everything()
        self.assertEqual([len(found.listener), len(found.action), len(found.user)], [128, 512, 320])
        self.assertEqual(found.figures, {})
        self.assertEqual(len(self.search(user=long).decisions), 1)

    def test_each_condition_finds_what_fits(self: Any) -> None:
        self.fill()
        for wanted, found in (
            ({}, "FEDCBA"),
            ({"user": "ann"}, "BA"),
            ({"user": "nobody"}, ""),
            ({"sender": "ANN@example.com"}, "FEA"),
            ({"sender": "@example.com"}, "FEA"),
            ({"sender": "example.com"}, "FEBA"),
            ({"sender": "nn@sub"}, ""),
            ({"sender": "ann@"}, "FEBA"),
            ({"sender": "s@bücher.example"}, "D"),
            ({"recipient": "bob@example.net"}, "FEDBA"),
            ({"recipient": "@EXAMPLE.net"}, "FEDBA"),
            ({"recipient": "x@bücher.example"}, "C"),
            ({"recipient": "@bücher.example"}, "C"),
            ({"recipient": "x@xn--bcher-kva.example"}, "C"),
            ({"client": ip_network("192.0.2.7")}, "FEA"),
            ({"client": ip_network("192.0.2.0/25")}, "FEA"),
            ({"client": ip_network("192.0.2.0/24")}, "FEBA"),
            ({"client": ip_network("0.0.0.0/0")}, "FEBA"),
            ({"client": ip_network("2001:db8::/32")}, "C"),
            ({"client": ip_network("2001:db9::/32")}, ""),
            ({"unknown_client": True}, "D"),
            ({"queue_id": "C"}, "C"),
            ({"instance": "9.9.9"}, "F"),
            ({"listener": "inbound"}, "D"),
            ({"policy": "Other"}, "E"),
            ({"reason": "quota_exceeded"}, "B"),
            ({"action": "reject"}, "B"),
            ({"action": "450"}, "E"),
            ({"node": "mx2"}, "FED"),
            ({"refused": True}, "EB"),
            ({"since": MOMENT + 3}, "FED"),
            ({"until": MOMENT + 3}, "CBA"),
            ({"since": MOMENT + 1, "until": MOMENT + 3}, "CB"),
            ({"user": "ann", "refused": True, "node": "mx1", "client": ip_network("192.0.2.0/24")}, "B"),
            ({"sender": "@example.com", "client": ip_network("192.0.2.0/24"), "since": MOMENT + 1}, "FE"),
            ({"since": 1e11}, ""),
        ):
            self.assertEqual("".join(self.found(**wanted)), found, wanted)

    def test_pages_follow_each_other(self: Any) -> None:
        self.fill()
        seen, before = "", None
        for _ in range(4):
            page = self.search(before, 2)
            seen += "".join(each.queue_id for each in page.decisions)
            before = page.next
        self.assertEqual((seen, before), ("FEDCBA", None))

    def test_a_search_without_time_says_how_far_it_got_and_continues_there(self: Any) -> None:
        self.fill()
        seen, before, pages = "", None, 0
        while pages == 0 or before is not None:
            page = search(self.store, Wanted(sender="example.com"), before, 100, lambda: True)
            seen += "".join(each.queue_id for each in page.decisions)
            before = page.next
            self.assertEqual(page.searched_since > 0, before is not None)
            pages += 1
        self.assertEqual(seen, "FEBA")
        self.assertGreater(pages, 1)

    def test_decisions_are_counted_in_groups(self: Any) -> None:
        self.fill()
        day = MOMENT - MOMENT % DAY
        for by, groups in (
            (GroupBy.HOUR, [("", MOMENT, 4, 1), ("", MOMENT + 3600, 1, 1), ("", MOMENT + DAY, 1, 0)]),
            (GroupBy.REASON, [("within_quota", 0, 4, 0), ("quota_exceeded", 0, 1, 1), ("too_soon", 0, 1, 1)]),
        ):
            found = self.counts(by)
            self.assertEqual(([tuple(each[:4]) for each in found.groups], found.counted_since), (groups, 0.0))
        days = self.counts(GroupBy.DAY).groups
        self.assertEqual([days[-1].start, sum(each.decisions for each in days)], [day + DAY, 6])
        self.assertEqual([each.decisions for each in self.counts(GroupBy.HOUR, limit=2).groups], [1, 1])

    def test_users_and_networks_are_counted_with_their_addresses(self: Any) -> None:
        self.fill()
        self.keep(record(time=MOMENT + 9, user="ann", recipient="carol@example.net"))
        users = {group.key: group for group in self.counts(GroupBy.USER).groups}
        self.assertEqual(users["ann"], Group("ann", 0.0, 3, 1, senders=2, recipients=2))
        self.assertEqual(users["bob"], Group("bob", 0.0, 2, 1, senders=1, recipients=1))
        self.assertEqual(users[""], Group("", 0.0, 2, 0))
        networks = {group.key: group[2:] for group in self.counts(GroupBy.CLIENT).groups}
        self.assertEqual(
            networks, {"192.0.2.0/24": (5, 2, 2, 2), "2001:db8::/64": (1, 0, 0, 1), "": (1, 0, None, None)}
        )
        self.assertEqual(self.counts(GroupBy.USER, limit=1, refused=True, user="ann").groups[0][2:4], (1, 1))

    def test_counting_without_time_says_how_far_it_got(self: Any) -> None:
        self.fill()
        found = counts(self.store, Wanted(), GroupBy.REASON, 10, lambda: True)
        self.assertGreater(found.counted_since, MOMENT)
        self.assertGreater(sum(each.decisions for each in found.groups), 0)


class InFileTests(SearchTests, InFile):
    pass


class InPostgreSQLTests(SearchTests, InPostgreSQL):
    pass


class InMariaDBTests(SearchTests, InMariaDB):
    pass
