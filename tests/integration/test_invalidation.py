"""A change invalidates cached values: at once, later, or on another node. Nodes use the clock of the test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from sqlalchemy import insert
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from chapps_tw.database import stale_keys
from chapps_tw.database.changes import apply
from chapps_tw.database.invalidation import BATCH_DELAY, KEYS, POLL, RETRY, STOP_TIMEOUT
from chapps_tw.database.models import users
from chapps_tw.database.outbox import OutboxRow
from chapps_tw.database.transaction import Permit, transact
from chapps_tw.database.writable_book import WritableSqlBook
from chapps_tw.interfaces import value_keys
from chapps_tw.interfaces.book import (
    BookUnavailable,
    ChangeUncertain,
    Create,
    Delete,
    Edit,
    StaleKeys,
)
from chapps_tw.interfaces.state import Fresh
from chapps_tw.interfaces.writable_book import Changed
from chapps_tw.state.invalidation import BookCache
from tests.support.book_case import CLOCK, DEADLINES, BookCase, OnSqlite, Statements, book_on, working
from tests.support.rest_client import Outage


class InvalidationTests(OnSqlite, BookCase):
    """One database, one state, and as many nodes as a test makes. The plan of a user stands for all that is cached.

    ``self.book`` is a node that commits changes and dies before it invalidates anything.
    """

    def setUp(self) -> None:
        super().setUp()
        self.state: Any = Outage()
        self.addCleanup(self.state.stop)
        self.clock = Clock()
        self.compared = 0
        self.removals = Statements(self.engine, "DELETE FROM invalidation_outbox")

    def node(self, clock: Clock | None = None, *, started: bool = True) -> WritableSqlBook:
        cache = BookCache(self.state, self.compare_all)
        size = self.adapter.pool_size
        node = book_on(self.engine, self.threads, *DEADLINES, size=size, reactor=clock or self.clock, cache=cache)
        if started:
            node.start()
        self.addCleanup(node.stop)
        return node

    async def compare_all(self) -> None:
        self.compared += 1

    async def awaits_state(self, node: WritableSqlBook, name: str = "alice") -> bool:
        """Make a change that makes the cached plan of a user stale; whether it waits for the state store."""
        return (await node.change(Create("users", {"name": name}))).awaits_state

    async def cache_plans(self, *names: str) -> None:
        keys = [value_keys.user_plan(name) for name in names]
        found = await self.state.inner.values(keys)
        fresh = [Fresh(key, "5", each.token) for key, each in zip(keys, found, strict=True)]
        await self.state.inner.keep_values(fresh, 1000.0)

    async def cached(self, *names: str) -> list[str | None]:
        found = await self.state.inner.values([value_keys.user_plan(name) for name in names])
        return [each.value for each in found]

    async def until(self, true: Callable[[], Any], what: str) -> None:
        """Wait for the threads."""
        end = time.monotonic() + 60
        while not true():
            self.assertLess(time.monotonic(), end, what)
            await deferLater(CLOCK, 0.005)

    async def rest(self) -> None:
        """Wait until all threads are idle, and remain so in the next turns of the reactor."""
        quiet = 0
        while quiet < 10:
            await deferLater(CLOCK, 0)
            quiet = 0 if working(self.threads) else quiet + 1

    async def until_empty(self, *, after: Iterable[float] = ()) -> None:
        """Advance the clock in steps, and wait until the outbox is empty."""
        for seconds in after:
            self.clock.advance(seconds)
            await self.rest()
        end = time.monotonic() + 60
        while await self.book.read_outbox():
            self.assertLess(time.monotonic(), end, "a row stays for ever")
            await deferLater(CLOCK, 0.005)

    # --- at once ---

    async def test_a_change_returns_when_it_is_in_effect(self) -> None:
        node = self.node()
        await self.cache_plans("alice", "bob")
        changed = await node.change(Create("users", {"name": "alice"}))
        self.assertEqual(await self.cached("alice", "bob"), [None, "5"])
        self.assertEqual(changed, Changed(changed.entry, 0))

    async def test_finished_rows_are_deleted_in_one_transaction_after_the_answers(self) -> None:
        node = self.node()
        for name in ("alice", "bob"):
            self.assertFalse(await self.awaits_state(node, name))
        self.assertEqual((len(await self.book.read_outbox()), node.pending_invalidations), (2, 0))
        await self.until_empty(after=[BATCH_DELAY])
        self.assertEqual(len(self.removals.seen), 1)

    async def test_what_was_invalidated_at_once_is_not_invalidated_again_when_its_row_is_read(self) -> None:
        node = self.node()
        await self.rest()
        self.clock.advance(POLL - BATCH_DELAY / 2)
        await self.awaits_state(node)
        await self.cache_plans("alice")
        await self.until_empty(after=[BATCH_DELAY / 2])
        self.assertEqual(await self.cached("alice"), ["5"])

    async def test_a_change_without_stale_keys_calls_nothing(self) -> None:
        node = self.node()
        await self.rest()
        await node.change(Create("emails", {"name": "x@example.com"}))
        self.assertEqual(self.state.asked, [])

    async def test_every_kind_of_cached_value_is_invalidated(self) -> None:
        node = self.node()
        await self.rest()
        keys = {
            "users": value_keys.user_plan("alice"),
            "senders": value_keys.sender("alice", "example.com"),
            "flags": value_keys.check_spf("example.com"),
            "quotas": value_keys.plan(7),
            "quota_names": value_keys.plan_named("basic"),
            "domains": value_keys.domain_plan("example.com"),
            "sender_domains": value_keys.senders_of_domain("example.com"),
            "exemptions": value_keys.EXEMPTIONS,
        }
        tokens = [each.token for each in await self.state.inner.values(list(keys.values()))]
        fresh = [Fresh(key, "1", token) for key, token in zip(keys.values(), tokens, strict=True)]
        await self.state.inner.keep_values(fresh, 1000.0)
        domain, alice = frozenset({"example.com"}), frozenset({"alice"})
        pairs, basic = frozenset({("alice", "example.com")}), frozenset({"basic"})
        stale = StaleKeys(alice, pairs, domain, frozenset({7}), basic, domain, domain, True)
        self.state.asked.clear()
        self.assertTrue(await node._invalidation.run(stale, []))
        self.assertEqual(
            [each.value for each in await self.state.inner.values(list(keys.values()))], [None] * len(keys)
        )
        self.assertEqual(set(self.state.asked), {"drop_values", "drop_flags"})
        self.assertEqual(self.compared, 0)

    # --- the stop ---

    async def test_a_stop_leaves_no_finished_row(self) -> None:
        node = self.node()
        await self.awaits_state(node)
        await node.stop()
        self.assertEqual(await self.book.read_outbox(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_a_stop_does_not_wait_for_a_database_that_hangs(self) -> None:
        node = self.node()
        await self.awaits_state(node)
        never: Deferred[None] = Deferred()
        self.patch(node, "remove_from_outbox", lambda _: never)
        stopped = Deferred.fromCoroutine(node.stop())
        self.assertFalse(stopped.called)
        self.clock.advance(STOP_TIMEOUT)
        await stopped
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_a_stop_does_not_wait_for_a_read_that_hangs_and_a_second_one_does_nothing(self) -> None:
        never: Deferred[list[OutboxRow]] = Deferred()
        node = self.node(started=False)
        self.patch(node, "read_outbox", lambda _: never)
        node.start()
        await self.awaits_state(node)
        stopped = Deferred.fromCoroutine(node.stop())
        self.clock.advance(STOP_TIMEOUT)
        await stopped
        await node.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_nothing_is_invalidated_after_the_stop(self) -> None:
        node = self.node()
        await node.stop()
        await self.cache_plans("alice")
        self.assertTrue(await self.awaits_state(node))
        self.assertEqual(await self.cached("alice"), ["5"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    # --- the state store is unavailable ---

    async def test_a_failed_invalidation_is_retried_when_the_state_is_available_again(self) -> None:
        node = self.node()
        await self.cache_plans("alice", "bob")
        self.state.away = True
        for count, name in enumerate(("alice", "bob"), 1):
            self.assertTrue(await self.awaits_state(node, name))
            self.assertEqual(node.pending_invalidations, count)
        reads = Statements(self.engine, "SELECT invalidation_outbox")
        for _ in range(5):
            self.clock.advance(RETRY)
            await self.rest()
        self.assertEqual((node.pending_invalidations, reads.seen), (2, []))
        self.state.away = False
        await self.until_empty(after=[RETRY])
        await self.until(lambda: node.pending_invalidations == 0, "nothing pending")
        self.assertEqual(await self.cached("alice", "bob"), [None, None])

    async def test_successive_changes_do_not_delay_the_next_retry(self) -> None:
        node = self.node()
        self.state.away = True
        await self.awaits_state(node, "alice")
        self.clock.advance(RETRY * 0.9)
        await self.awaits_state(node, "bob")
        self.state.away = False
        await self.until_empty(after=[RETRY * 0.2])

    async def test_another_node_does_the_invalidations_of_one_that_died(self) -> None:
        await self.cache_plans("alice")
        other = self.node()
        await self.until_empty()
        self.state.away = True
        dead = self.node(Clock())
        self.assertTrue(await self.awaits_state(dead))
        self.state.away = False
        self.clock.advance(POLL / 2)
        await self.rest()
        self.assertEqual(await self.cached("alice"), ["5"])
        await self.until_empty(after=[POLL / 2])
        self.assertEqual((await self.cached("alice"), other.pending_invalidations), ([None], 0))

    async def test_two_nodes_may_do_the_same(self) -> None:
        await self.cache_plans("alice")
        await self.user("alice")
        nodes = [self.node(), self.node()]
        await self.until_empty()
        self.assertEqual(await self.cached("alice"), [None])
        self.assertEqual([node.pending_invalidations for node in nodes], [0, 0])

    # --- the start ---

    async def test_a_start_invalidates_committed_changes_that_were_not(self) -> None:
        await self.cache_plans("alice")
        transact(
            self.engine, partial(apply, edit=Create("users", {"name": "alice"}), author="", now=0.0), Permit(), "taken"
        )
        node = self.node()
        await self.until_empty()
        self.assertEqual((await self.cached("alice"), node.pending_invalidations), ([None], 0))

    async def test_a_start_without_the_state_knows_what_is_pending(self) -> None:
        await self.cache_plans("alice", "bob")
        await self.user("alice")
        await self.user("bob")
        self.state.away = True
        node = self.node()
        await self.until(lambda: node.pending_invalidations == 2, "what is pending known")
        self.state.away = False
        await self.until_empty(after=[RETRY])
        self.assertEqual(await self.cached("alice", "bob"), [None, None])
        await self.until(lambda: node.pending_invalidations == 0, "nothing pending")

    # --- the database is unavailable ---

    async def test_reads_of_an_unavailable_database_are_retried_without_logging(self) -> None:
        await self.cache_plans("alice")
        await self.user("alice")
        asked: list[str] = []
        node = self.node(started=False)
        read = node.read_outbox

        async def away(after: str = "") -> list[OutboxRow]:
            asked.append(after)
            raise BookUnavailable("away")

        self.patch(node, "read_outbox", away)
        node.start()
        for _ in range(3):
            self.clock.advance(RETRY)
        self.assertEqual(len(asked), 4)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.patch(node, "read_outbox", read)
        await self.until_empty(after=[RETRY])
        self.assertEqual(await self.cached("alice"), [None])

    async def test_a_row_that_cannot_be_deleted_costs_one_invalidation_more(self) -> None:
        node = self.node()
        await self.until_empty()
        remove = node.remove_from_outbox

        async def away(_: Any) -> None:
            raise BookUnavailable("away")

        self.patch(node, "remove_from_outbox", away)
        self.assertFalse(await self.awaits_state(node))
        self.clock.advance(BATCH_DELAY)
        await self.rest()
        self.assertEqual(len(await self.book.read_outbox()), 1)
        self.patch(node, "remove_from_outbox", remove)
        await self.until_empty(after=[POLL])
        self.assertEqual((self.state.asked, node.pending_invalidations), (["drop_values"] * 2, 0))

    async def test_an_uncertain_change_is_invalidated_at_once_and_again_when_it_is_stored(self) -> None:
        node = self.node()
        await self.until_empty()
        await self.cache_plans("alice")

        async def lost(_edit: Edit, _author: str) -> Any:
            raise ChangeUncertain("connection lost", StaleKeys(users=frozenset({"alice"})))

        self.patch(node, "_store", lost)
        with self.assertRaises(ChangeUncertain):
            await self.awaits_state(node)
        self.assertEqual(await self.cached("alice"), [None])
        # It is committed late, after the book was read.
        await self.cache_plans("alice")
        await self.user("alice")
        await self.until_empty(after=[RETRY])
        self.assertEqual(await self.cached("alice"), [None])
        await self.until(lambda: node.pending_invalidations == 0, "nothing pending")

    # --- many ---

    async def test_many_keys_are_all_invalidated_after_an_outage_in_between(self) -> None:
        node = self.node()
        await self.until_empty()
        names = self.add_users(count := 6000)
        # Raised, to list more than usual.
        self.patch(stale_keys, "MAX_LISTED", count)
        await self.cache_plans(names[0], names[-1])
        drop = self.state.inner.drop_values

        def once(keys: Any) -> Any:
            self.state.away = True
            return drop(keys)

        self.patch(self.state.inner, "drop_values", once)
        self.assertTrue((await node.change(Delete("users", range(1, count + 1)))).awaits_state)
        self.assertGreater(node.pending_invalidations, 2)
        self.assertEqual(node.pending_invalidations, len(await self.book.read_outbox()))
        self.assertLess(len(self.state.asked), count // KEYS)
        self.patch(self.state.inner, "drop_values", drop)
        self.state.away = False
        await self.until_empty(after=[RETRY])
        self.assertEqual(await self.cached(names[0], names[-1]), [None, None])
        await self.until(lambda: node.pending_invalidations == 0, "nothing pending")

    async def test_more_keys_than_are_listed_are_compared_here_and_the_answer_says_so(self) -> None:
        node = self.node()
        await self.until_empty()
        self.add_users(10)
        self.patch(stale_keys, "MAX_LISTED", 9)
        changed = await node.change(Delete("users", range(1, 11)))
        self.assertEqual(changed, Changed(None, 0, awaits_state=False, awaits_refresh=True))
        self.assertEqual((self.compared, self.state.asked, node.pending_invalidations), (1, [], 0))

    def add_users(self, count: int) -> list[str]:
        names = [f"user{number}@customer.example" for number in range(1, count + 1)]
        with self.engine.begin() as connection:
            connection.execute(insert(users), [{"id": id, "name": name} for id, name in enumerate(names, 1)])
        return names

    async def test_a_change_while_the_outbox_is_read_is_not_missed(self) -> None:
        node = self.node()
        await self.until_empty()
        await self.cache_plans("alice", "bob")
        self.state.away = True
        await self.awaits_state(node, "alice")
        self.state.away = False
        read = node.read_outbox

        async def meanwhile(after: str = "") -> list[OutboxRow]:
            found = await read(after)
            if not after:
                # Its id may be less than those that are read next.
                self.state.away = True
                await self.awaits_state(node, "bob")
                self.state.away = False
                self.patch(node, "read_outbox", read)
            return found

        self.patch(node, "read_outbox", meanwhile)
        await self.until_empty(after=[RETRY, RETRY])
        self.assertEqual(await self.cached("alice", "bob"), [None, None])
        await self.until(lambda: node.pending_invalidations == 0, "nothing pending")
