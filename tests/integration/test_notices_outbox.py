"""The outbox of notices, on each kind of database."""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults

from chapps_tw.database.models import notices
from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.notify.notice import Channel, Notice, notice
from chapps_tw.notify.outbox import LEASE, Outbox
from tests.support.book_case import DEADLINES, BookCase, OnMariaDB, OnPostgreSQL, OnSqlite, book_on, patient_engine

DAY = 86400.0
NOW = 1_790_000_000.0
USER, WEBHOOK = ("user", "at_limit"), ("webhook", "at_limit")


def made(number: int, channel: Channel = Channel.USER, created: float = NOW) -> Notice:
    return notice(channel, "at_limit", {"account": f"\udce9 user {number}"}, created)


class OutboxTests(BookCase):
    """Behaviour on one kind of database."""

    __test__ = False

    def setUp(self) -> None:
        super().setUp()
        self.outbox = Outbox(self.book, DAY)

    async def leased(self, now: float = NOW, count: int = 100, channel: Channel = Channel.USER) -> list[str]:
        return [each.id for each in await self.outbox.lease(channel, now, count)]

    async def test_what_is_leased_is_not_due_until_the_lease_ends(self) -> None:
        first, second = made(1), made(2, created=NOW - 1)
        self.assertEqual(await self.outbox.add([first, second]), [])
        self.assertEqual(await self.outbox.lease(Channel.USER, NOW, 1), [second._replace(attempts=1)])
        self.assertEqual(await self.outbox.lease(Channel.USER, NOW, 100), [first._replace(attempts=1)])
        self.assertEqual(await self.leased(NOW + LEASE - 1), [])
        found = await self.outbox.lease(Channel.USER, NOW + LEASE, 100)
        self.assertEqual({each.id: each.attempts for each in found}, {first.id: 2, second.id: 2})

    async def test_each_channel_has_its_own(self) -> None:
        await self.outbox.add([made(1), made(1, Channel.WEBHOOK)])
        self.assertEqual(await self.leased(channel=Channel.ADMIN), [])
        self.assertEqual(await self.leased(channel=Channel.WEBHOOK), [made(1, Channel.WEBHOOK).id])

    async def test_what_was_there_is_not_added_again(self) -> None:
        await self.outbox.add([made(1), made(1)])
        await self.outbox.add([made(1), made(2)])
        [first, _] = await self.outbox.lease(Channel.USER, NOW, 100)
        await self.outbox.settle([first], {})
        await self.outbox.add([made(1), made(2)])
        self.assertEqual(
            await self.leased(NOW + LEASE), [each.id for each in (made(1), made(2)) if each.id != first.id]
        )

    async def test_what_failed_is_due_again_when_it_is_said(self) -> None:
        await self.outbox.add([made(1)])
        [found] = await self.outbox.lease(Channel.USER, NOW, 100)
        await self.outbox.settle([], {found: NOW + 5})
        self.assertEqual((await self.leased(NOW + 4), await self.leased(NOW + 5)), ([], [found.id]))

    async def test_a_failure_of_who_had_the_lease_before_changes_nothing(self) -> None:
        await self.outbox.add([made(1)])
        [before] = await self.outbox.lease(Channel.USER, NOW, 100)
        [now] = await self.outbox.lease(Channel.USER, NOW + LEASE, 100)
        await self.outbox.settle([], {before: NOW})
        self.assertEqual(await self.leased(NOW + LEASE), [])
        await self.outbox.settle([now], {})
        await self.outbox.settle([], {now: NOW})
        self.assertEqual(await self.leased(NOW + 2 * LEASE), [])

    async def test_several_nodes_never_lease_the_same(self) -> None:
        many = [made(number) for number in range(60)]
        await self.outbox.add(many)
        other = book_on(patient_engine(self.adapter), self.threads, *DEADLINES, size=self.adapter.pool_size)
        self.addCleanup(other.stop)
        boxes = [self.outbox, Outbox(other, DAY)] * 4
        found: list[str] = []
        while len(found) < len(many):
            turns = [Deferred.fromCoroutine(self.lease_or_wait(box)) for box in boxes]
            for ids in await gatherResults(turns):
                found += ids
        self.assertEqual(sorted(found), sorted(each.id for each in many))

    async def lease_or_wait(self, box: Outbox) -> list[str]:
        try:
            return [each.id for each in await box.lease(Channel.USER, NOW, 5)]
        except BookUnavailable:
            # Another one holds a lock.
            return []

    async def test_it_has_an_end(self) -> None:
        outbox = Outbox(self.book, DAY, max_pending=3)
        await outbox.add([made(1), made(2)])
        self.assertEqual(await outbox.add([made(2), made(3), made(4)]), [made(4)])
        [first, *_] = await outbox.lease(Channel.USER, NOW, 1)
        await outbox.settle([first], {})
        self.assertEqual(await outbox.add([made(4)]), [])

    async def test_what_is_tried_too_long_is_given_up_and_told_unless_it_is_being_sent(self) -> None:
        await self.outbox.add([made(1), made(2, created=NOW + 100), made(3, Channel.WEBHOOK)])
        [_] = await self.outbox.lease(Channel.WEBHOOK, NOW + DAY, 1)
        upkeep = await self.outbox.maintain(NOW + DAY + 1)
        self.assertEqual((upkeep.pending, upkeep.given_up), ({USER: 1, WEBHOOK: 1}, {USER: 1}))
        self.assertEqual(await self.leased(NOW + DAY + 1), [made(2, created=NOW + 100).id])
        upkeep = await self.outbox.maintain(NOW + DAY + 200)
        self.assertEqual((upkeep.pending, upkeep.given_up), ({}, {USER: 1, WEBHOOK: 1}))

    async def test_what_is_settled_goes_after_a_day(self) -> None:
        await self.outbox.add([made(1)])
        await self.outbox.settle(await self.outbox.lease(Channel.USER, NOW, 1), {})
        for seconds, left in ((DAY - 1, 1), (DAY + 1, 0)):
            await self.outbox.maintain(NOW + seconds)
            with self.engine.connect() as connection:
                contents = list(connection.execute(notices.select()).mappings())
            self.assertEqual([row["content"] for row in contents], [""] * left)


class OutboxOnSqlite(OnSqlite, OutboxTests):
    __test__ = True


class OutboxOnPostgreSQL(OnPostgreSQL, OutboxTests):
    __test__ = True


class OutboxOnMariaDB(OnMariaDB, OutboxTests):
    __test__ = True
