"""Events in the database, on each kind of it."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from chapps_tw.database import events as stored
from chapps_tw.interfaces.book import Create, Delete, Update
from chapps_tw.interfaces.events import Event, EventsWanted
from tests.support.book_case import BookCase, OnMariaDB, OnPostgreSQL, OnSqlite

NOW = 1_790_000_000.0


class EventTests(BookCase):
    """Behaviour on one kind of database."""

    __test__ = False

    async def found(self, **wanted: Any) -> list[tuple[str, str]]:
        """Return kind and name of events, newest first."""
        return [(event.kind, event.name) for event in await self.book.events(EventsWanted(**wanted))]

    async def test_events_are_found_by_what_they_are_about_when_and_where(self) -> None:
        figures = {"used": 5, "amount": 5}
        later = NOW + 60
        await self.book.add_events("mx1", [Event("at_limit", NOW, "alice", "5 of 5", figures)])
        await self.book.add_events("mx2", [Event("node_started", later, "mx2"), Event("near_limit", later, "bob")])
        every = [("near_limit", "bob"), ("node_started", "mx2"), ("at_limit", "alice")]
        self.assertEqual(await self.found(), every)
        self.assertEqual(await self.found(kinds=("at_limit", "near_limit")), [every[0], every[2]])
        self.assertEqual(await self.found(name="alice"), every[2:])
        self.assertEqual(await self.found(node="mx2"), every[:2])
        self.assertEqual(await self.found(since=later), every[:2])
        self.assertEqual(await self.found(until=later), every[2:])
        [newest] = await self.book.events(EventsWanted(limit=1))
        self.assertEqual(await self.found(before=newest.id), every[1:])
        [oldest] = await self.book.events(EventsWanted(name="alice"))
        self.assertEqual((oldest.node, oldest.author, oldest.detail, oldest.figures), ("mx1", "", "5 of 5", figures))
        self.assertEqual(await self.found(after=oldest.id), every[:2])

    async def test_they_are_not_changes_of_the_audit_trail(self) -> None:
        await self.book.add_events("mx1", [Event("node_started", NOW, "mx1")])
        self.assertEqual(await self.book.audit(), [])

    async def test_what_several_nodes_notice_of_a_dependency_is_one_event(self) -> None:
        for node in ("mx1", "mx2"):
            await self.book.add_events(node, [Event("dependency_back", NOW, "state")])
        self.assertEqual(await self.found(), [])
        for kind in ("dependency_away", "dependency_back", "dependency_away"):
            turns = [self.book.add_events(node, [Event(kind, NOW, "state", "why")]) for node in ("mx1", "mx2", "mx3")]
            await gatherResults([Deferred.fromCoroutine(turn) for turn in turns])
        away, back = ("dependency_away", "state"), ("dependency_back", "state")
        self.assertEqual(await self.found(), [away, back, away])
        await self.book.add_events("mx1", [Event("dependency_away", NOW, "dns")])
        self.assertEqual(await self.found(name="dns"), [("dependency_away", "dns")])

    async def test_changes_of_overrides_and_exemptions_are_events(self) -> None:
        alice, until = await self.user("alice"), time.time() + 3600
        overrides: list[int] = []
        rules: tuple[dict[str, str | int], ...] = (
            {"kind": "suspended", "reason": 'he said "kind": "extra"'},
            {"kind": "extra", "value": 7},
            {"kind": "unlimited"},
        )
        for fields in rules:
            new = Create("overrides", {"user": alice, "until": until, **fields})
            overrides.append((await self.book.change(new, "desk")).entry.id)  # type: ignore[union-attr]
        client = Create("exemptions", {"kind": "client", "value": "192.0.2.1", "scope": "spf", "until": until})
        exemption = (await self.book.change(client, "desk")).entry
        assert exemption is not None
        made = [("exempted", "192.0.2.1"), ("raised", "alice"), ("raised", "alice"), ("suspended", "alice")]
        self.assertEqual(await self.found(), made)
        await self.book.change(Update("overrides", overrides[0], {"until": until + 1}), "desk")
        for id in overrides[:2]:
            await self.book.change(Delete("overrides", [id]), "boss")
        await self.book.change(Delete("exemptions", [exemption.id]), "boss")
        ended = [("ended", "192.0.2.1"), ("ended", "alice"), ("released", "alice"), ("suspended", "alice")]
        self.assertEqual(await self.found(), ended + made)
        for kind in ("exempted", "raised", "suspended", "ended", "released"):
            self.assertEqual(await self.found(kinds=(kind,)), [each for each in ended + made if each[0] == kind])
        [released] = await self.book.events(EventsWanted(("released",)))
        self.assertEqual((released.author, released.node), ("boss", ""))
        self.assertRegex(released.detail, '^until 20.*: he said "kind": "extra"$')

    async def test_the_oldest_go_if_there_are_too_many_and_changes_stay(self) -> None:
        self.patch(stored, "MAX_EVENTS", 3)
        await self.user("alice")
        await self.book.add_events("mx1", [Event("at_limit", NOW, f"u{number}") for number in range(5)])
        await self.book.prune_audit(1e9)
        self.assertEqual(await self.found(), [("at_limit", name) for name in ("u4", "u3", "u2")])
        self.assertEqual(len(await self.book.audit()), 1)


class OnSqliteTests(OnSqlite, EventTests):
    __test__ = True


class OnPostgreSQLTests(OnPostgreSQL, EventTests):
    __test__ = True


class OnMariaDBTests(OnMariaDB, EventTests):
    __test__ = True
