"""Cached copies are dropped, sooner or later, and by whichever node; the dropper's time is the test's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from sqlalchemy import insert
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from chapps_tw.database import changes
from chapps_tw.database import touched as touched_copies
from chapps_tw.database.models import quota_user, users
from chapps_tw.database.transaction import Permit, transact
from chapps_tw.interfaces.book import BookUnavailable, Touched
from chapps_tw.interfaces.state import Fill, Rules, Spend
from chapps_tw.rest.dropping import GATHER, LOOK, NAMES, RETRY, STOP, WAITING, CopyDropper
from chapps_tw.rest.slices import Slices
from tests.support.book_case import CLOCK, BookCase, OnSqlite, Statements, working
from tests.support.rest_client import Outage

RULES = Rules(86400, 0, 0.0, 0.0)


class DropperTests(OnSqlite, BookCase):
    """One database, one state, and as many nodes as a test makes. The limit of a user stands for all copies."""

    def setUp(self) -> None:
        super().setUp()
        self.state = Outage()
        self.addCleanup(self.state.stop)
        self.clock = Clock()
        self.removals = Statements(self.engine, "DELETE FROM pending_drops")

    def node(self) -> CopyDropper:
        """A node that has been started."""
        dropper = CopyDropper(self.state, self.book, self.clock, Slices(CLOCK))
        dropper.start()
        self.addCleanup(dropper.stop)
        return dropper

    async def change(self, name: str = "alice") -> Touched:
        """Make a change that makes the cached limit of a user wrong."""
        _, touched = await self.book.create("users", {"name": name}, {})
        return touched

    async def cache(self, *names: str) -> None:
        for name in names:
            spend = Spend(name, "", "", 0)
            spent = await self.state.inner.spend(spend, RULES)
            await self.state.inner.spend(spend, RULES, Fill(spent.token, 5, 1000.0))

    async def cached(self, *names: str) -> list[int | None]:
        return [usage.limit for usage in await self.state.inner.usage(names, 86400)]

    async def until(self, true: Callable[[], Any], what: str) -> None:
        """Wait for threads."""
        end = time.monotonic() + 60
        while not true():
            self.assertLess(time.monotonic(), end, what)
            await deferLater(CLOCK, 0.005)

    async def rest(self) -> None:
        """Wait until no thread has anything to do, nor gets it in the next turns of the reactor."""
        quiet = 0
        while quiet < 10:
            await deferLater(CLOCK, 0)
            quiet = 0 if working(self.threads) else quiet + 1

    async def gone(self, *, after: Iterable[float] = ()) -> None:
        """Let time pass in steps, and wait until all is done that was pending."""
        for seconds in after:
            self.clock.advance(seconds)
            await self.rest()
        end = time.monotonic() + 60
        while await self.book.pending():
            self.assertLess(time.monotonic(), end, "something is pending for ever")
            await deferLater(CLOCK, 0.005)

    # --- the ordinary way ---

    async def test_what_is_dropped_at_once_is_forgotten_in_one_transaction_with_the_next(self) -> None:
        node = self.node()
        await self.cache("alice", "bob", "carol")
        for name in ("alice", "bob"):
            self.assertEqual(await node.drop(await self.change(name)), [])
        self.assertEqual(await self.cached("alice", "bob", "carol"), [None, None, 5])
        self.assertEqual((len(await self.book.pending()), node.left), (2, 0))
        await self.gone(after=[GATHER])
        self.assertEqual(len(self.removals.seen), 1)

    async def test_what_was_dropped_at_once_is_not_dropped_again_when_it_is_looked_for(self) -> None:
        node = self.node()
        await self.rest()
        self.clock.advance(LOOK - GATHER / 2)
        await node.drop(await self.change())
        await self.cache("alice")
        await self.gone(after=[GATHER / 2])
        self.assertEqual(await self.cached("alice"), [5])

    async def test_a_stop_does_not_leave_what_is_done(self) -> None:
        node = self.node()
        await node.drop(await self.change())
        await node.stop()
        self.assertEqual(await self.book.pending(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_a_stop_does_not_wait_for_a_database_that_hangs(self) -> None:
        node = self.node()
        await node.drop(await self.change())
        never: Deferred[None] = Deferred()
        self.patch(self.book, "dropped", lambda _: never)
        stopped = Deferred.fromCoroutine(node.stop())
        self.assertFalse(stopped.called)
        self.clock.advance(STOP)
        await stopped
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_a_stop_does_not_wait_for_a_look_that_hangs_and_a_second_one_does_nothing(self) -> None:
        never: Deferred[list[Touched]] = Deferred()
        self.patch(self.book, "pending", lambda _: never)
        node = self.node()
        await node.drop(await self.change())
        stopped = Deferred.fromCoroutine(node.stop())
        self.clock.advance(STOP)
        await stopped
        await node.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_nothing_is_dropped_once_it_is_stopped(self) -> None:
        node = self.node()
        await node.stop()
        await self.cache("alice")
        self.assertEqual(await node.drop(await self.change()), [WAITING])
        self.assertEqual(await self.cached("alice"), [5])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_a_change_that_touches_nothing_asks_nobody(self) -> None:
        self.assertEqual(await self.node().drop(Touched()), [])
        self.assertEqual(self.state.asked, [])

    # --- the state is away ---

    async def test_what_cannot_be_dropped_is_dropped_when_the_state_is_back(self) -> None:
        node = self.node()
        await self.cache("alice", "bob")
        self.state.away = True
        for count, name in enumerate(("alice", "bob"), 1):
            self.assertEqual(await node.drop(await self.change(name)), [WAITING])
            self.assertEqual(node.left, count)
        looks = Statements(self.engine, "SELECT pending_drops")
        for _ in range(5):
            self.clock.advance(RETRY)
            await self.rest()
        self.assertEqual((node.left, looks.seen), (2, []))
        self.state.away = False
        await self.gone(after=[RETRY])
        await self.until(lambda: node.left == 0, "nothing left")
        self.assertEqual(await self.cached("alice", "bob"), [None, None])

    async def test_changes_one_after_the_other_do_not_put_the_next_look_off(self) -> None:
        node = self.node()
        self.state.away = True
        await node.drop(await self.change("alice"))
        self.clock.advance(RETRY * 0.9)
        await node.drop(await self.change("bob"))
        self.state.away = False
        await self.gone(after=[RETRY * 0.2])

    async def test_another_node_takes_up_what_is_left_by_one_that_died(self) -> None:
        await self.cache("alice")
        other = self.node()
        await self.gone()
        self.state.away = True
        dead = CopyDropper(self.state, self.book, Clock(), Slices(CLOCK))
        dead.start()
        self.addCleanup(dead.stop)
        await dead.drop(await self.change())
        self.state.away = False
        self.clock.advance(LOOK / 2)
        await self.rest()
        self.assertEqual(await self.cached("alice"), [5])
        await self.gone(after=[LOOK / 2])
        self.assertEqual((await self.cached("alice"), other.left), ([None], 0))

    async def test_two_nodes_may_take_up_the_same(self) -> None:
        await self.cache("alice")
        await self.change()
        nodes = [self.node(), self.node()]
        await self.gone()
        self.assertEqual((await self.cached("alice"), [node.left for node in nodes]), ([None], [0, 0]))

    # --- the start ---

    async def test_a_change_that_was_committed_and_never_dropped_is_dropped_at_the_start(self) -> None:
        await self.cache("alice")
        work = partial(changes.create, kind="users", fields={"name": "alice"}, links={})
        transact(self.engine, work, Permit(), str)
        node = self.node()
        await self.gone()
        self.assertEqual((await self.cached("alice"), node.left), ([None], 0))

    async def test_a_start_while_the_state_is_away_knows_what_is_left(self) -> None:
        await self.cache("alice", "bob")
        await self.change("alice")
        await self.change("bob")
        self.state.away = True
        node = self.node()
        await self.until(lambda: node.left == 2, "what is left known")
        self.state.away = False
        await self.gone(after=[RETRY])
        self.assertEqual(await self.cached("alice", "bob"), [None, None])
        await self.until(lambda: node.left == 0, "nothing left")

    # --- the database is away ---

    async def test_a_database_that_is_away_is_asked_again_and_nothing_is_logged(self) -> None:
        await self.cache("alice")
        await self.change()
        asked: list[str] = []
        pending = self.book.pending

        async def away(after: str = "") -> list[Touched]:
            asked.append(after)
            raise BookUnavailable("away")

        self.patch(self.book, "pending", away)
        self.node()
        for _ in range(3):
            self.clock.advance(RETRY)
        self.assertEqual(len(asked), 4)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.patch(self.book, "pending", pending)
        await self.gone(after=[RETRY])
        self.assertEqual(await self.cached("alice"), [None])

    async def test_a_database_that_goes_away_after_the_drop_costs_one_drop_more(self) -> None:
        node = self.node()
        await self.gone()
        dropped = self.book.dropped

        async def away(_: Any) -> None:
            raise BookUnavailable("away")

        self.patch(self.book, "dropped", away)
        self.assertEqual(await node.drop(await self.change()), [])
        self.clock.advance(GATHER)
        await self.rest()
        self.assertEqual(len(await self.book.pending()), 1)
        self.patch(self.book, "dropped", dropped)
        await self.gone(after=[LOOK])
        self.assertEqual((self.state.asked, node.left), (["drop_limits"] * 2, 0))

    async def test_what_is_uncertain_is_dropped_again_once_it_is_there(self) -> None:
        node = self.node()
        await self.gone()
        await node.drop(Touched(limits=frozenset({"alice"})))
        # The commit comes late, and somebody has read the book before.
        await self.cache("alice")
        await self.change("alice")
        await self.gone(after=[RETRY])
        self.assertEqual(await self.cached("alice"), [None])
        await self.until(lambda: node.left == 0, "nothing left")

    # --- many ---

    async def test_a_change_that_touches_many_is_dropped_to_the_end_after_an_outage_in_between(self) -> None:
        node = self.node()
        await self.gone()
        names = self.add_users(count := 6000)
        # More than are named otherwise.
        self.patch(touched_copies, "MOST", count)
        await self.cache(names[0], names[-1])
        _, touched = await self.book.update("quotas", 1, {"quota": 200}, {})
        self.assertGreater(len(touched.pending), 2)
        drop = self.state.inner.drop_limits

        def once(users: Any) -> Any:
            self.state.away = True
            return drop(users)

        self.patch(self.state.inner, "drop_limits", once)
        self.assertEqual(await node.drop(touched), [WAITING])
        self.assertEqual(node.left, len(touched.pending))
        self.assertLess(len(self.state.asked), count // NAMES)
        self.patch(self.state.inner, "drop_limits", drop)
        self.state.away = False
        await self.gone(after=[RETRY])
        self.assertEqual(await self.cached(names[0], names[-1]), [None, None])
        await self.until(lambda: node.left == 0, "nothing left")

    def add_users(self, count: int) -> list[str]:
        names = [f"user{number}@customer.example" for number in range(1, count + 1)]
        with self.engine.begin() as connection:
            connection.execute(insert(users), [{"id": id, "name": name} for id, name in enumerate(names, 1)])
            changes.create(connection, "quotas", {"name": "basic", "quota": 100}, {})
            connection.execute(insert(quota_user), [{"user_id": id, "quota_id": 1} for id in range(1, count + 1)])
        return names

    async def test_a_change_during_a_look_is_not_passed_over(self) -> None:
        node = self.node()
        await self.gone()
        await self.cache("alice", "bob")
        self.state.away = True
        await node.drop(await self.change("alice"))
        self.state.away = False
        pending = self.book.pending

        async def meanwhile(after: str = "") -> list[Touched]:
            found = await pending(after)
            if not after:
                # Its key may be before those that are looked at next.
                self.state.away = True
                await node.drop(await self.change("bob"))
                self.state.away = False
                self.patch(self.book, "pending", pending)
            return found

        self.patch(self.book, "pending", meanwhile)
        await self.gone(after=[RETRY, RETRY])
        self.assertEqual(await self.cached("alice", "bob"), [None, None])
        await self.until(lambda: node.left == 0, "nothing left")
