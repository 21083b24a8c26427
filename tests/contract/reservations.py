"""What every LiveState promises about a message that is counted before its end is known."""

from __future__ import annotations

from chapps_tw.interfaces.state import Charge, Spent, Unit
from tests.contract.spending_case import ACCEPTED, EXCEEDED, REPEATED, SpendingCase
from tests.support.charges import charge, rcpt, whole, window_of

HELD = 100.0


class ReservationContract(SpendingCase):
    """Reservations."""

    async def reserve(self, instance: str, recipient: str, *charges: Charge) -> Spent:
        return await self.state.spend(rcpt(instance, recipient, HELD), charges or [charge()])

    async def test_what_is_reserved_counts_until_it_is_given_back(self) -> None:
        for recipient in "abc":
            self.assertEqual((await self.reserve("i", recipient)).outcome, ACCEPTED)
        self.advance(HELD - 0.25)
        self.assertEqual(await self.used(), 3)
        self.assertEqual((await self.state.spend(whole("j"), [charge(amount=3)])).outcome, EXCEEDED)
        self.advance(0.25)
        self.assertEqual(await self.used(), 0)
        self.assertEqual((await self.state.peek(whole("j"), [charge(amount=3)])).used, (3,))
        self.assertEqual((await self.state.spend(whole("j"), [charge(amount=3)])).used, (3,))

    async def test_a_request_about_the_whole_message_counts_it_for_good(self) -> None:
        for amount, outcome in ((2, REPEATED), (1, ACCEPTED), (3, ACCEPTED)):
            for recipient in "ab":
                await self.reserve(f"i{amount}", recipient, charge(limit=99))
            spent = await self.state.spend(whole(f"i{amount}"), [charge(amount=amount, limit=99)])
            self.assertEqual(spent.outcome, outcome)
        self.advance(HELD)
        self.assertEqual(await self.used(), 6)
        self.advance(1000 - HELD)
        self.assertEqual(await self.used(), 0)

    async def test_so_does_one_about_a_recipient_that_reserves_nothing(self) -> None:
        await self.reserve("i", "a")
        self.assertEqual((await self.state.spend(rcpt("i", "a"), [charge()])).outcome, REPEATED)
        await self.reserve("i", "b")
        self.advance(HELD)
        self.assertEqual(await self.used(), 2)

    async def test_what_is_counted_for_good_is_not_reserved_later(self) -> None:
        await self.state.spend(whole("i"), [charge(amount=2)])
        await self.reserve("i", "a")
        self.advance(HELD)
        self.assertEqual(await self.used(), 3)

    async def test_peek_counts_nothing_for_good(self) -> None:
        await self.reserve("i", "a")
        await self.state.peek(whole("i"), [charge()])
        self.advance(HELD)
        self.assertEqual(await self.used(), 0)

    async def test_one_that_is_refused_counts_nothing_for_good(self) -> None:
        await self.reserve("i", "a")
        refused = await self.state.spend(rcpt("i", "b"), [charge(limit=1)])
        self.assertEqual(refused.outcome, EXCEEDED)
        self.advance(HELD)
        self.assertEqual(await self.used(), 0)

    async def test_a_later_recipient_does_not_prolong_it(self) -> None:
        await self.reserve("i", "a")
        self.advance(60)
        await self.reserve("i", "b")
        self.advance(40)
        self.assertEqual(await self.used(), 0)
        self.assertEqual((await self.reserve("i", "a")).used, (1,))
        self.advance(60)
        self.assertEqual(await self.used(), 1)

    async def test_a_message_that_was_given_back_is_counted_anew(self) -> None:
        for recipient in "ab":
            await self.reserve("i", recipient)
        self.advance(HELD)
        self.assertEqual((await self.state.spend(whole("i"), [charge(amount=2)]))[:3], (ACCEPTED, -1, (2,)))
        self.advance(HELD)
        self.assertEqual(await self.used(), 2)

    async def test_each_message_is_given_back_in_its_time(self) -> None:
        for seconds, instance in ((300.0, "long"), (50.0, "short"), (100.0, "middle")):
            await self.state.spend(rcpt(instance, "a", seconds), [charge()])
        await self.state.spend(whole("middle"), [charge()])
        for pause, used in ((49.0, 3), (1.0, 2), (100.0, 2), (149.0, 2), (1.0, 1)):
            self.advance(pause)
            self.assertEqual(await self.used(), used)

    async def test_every_window_and_account_gets_it_back(self) -> None:
        charges = [charge(), charge(window=500.0), charge("pool", 1, space="pool", unit=Unit.MESSAGES)]
        await self.state.spend(whole("before"), charges)
        for recipient in "ab":
            await self.reserve("i", recipient, *charges)
        windows = [window_of(each) for each in charges]
        self.assertEqual([each.used for each in await self.state.usage(windows)], [3, 3, 2])
        self.advance(HELD)
        self.assertEqual([each.used for each in await self.state.usage(windows)], [1, 1, 1])
        self.assertEqual((await self.state.spend(whole("j"), charges)).used, (2, 2, 2))

    async def test_what_leaves_the_window_first_is_not_given_back_again(self) -> None:
        short = charge(window=50.0)
        await self.reserve("i", "a", short)
        self.advance(50)
        await self.state.spend(whole("j"), [short])
        self.advance(45)
        self.assertEqual((await self.state.spend(whole("j"), [short]))[:3], (REPEATED, -1, (1,)))
        await self.state.spend(whole("k"), [short])
        self.advance(10)
        self.assertEqual((await self.state.spend(whole("l"), [short])).used, (2,))

    async def test_reservations_end_after_a_restart(self) -> None:
        await self.reserve("i", "a")
        await self.reserve("j", "a")
        await self.restart()
        await self.state.spend(whole("j"), [charge()])
        await self.reserve("k", "a")
        self.advance(HELD)
        self.assertEqual(await self.used(), 1)
        await self.restart()
        self.assertEqual((await self.state.spend(whole("l"), [charge()])).used, (2,))

    async def test_a_reservation_moves_along_when_the_clock_is_set_back(self) -> None:
        self.advance(1e6)
        await self.reserve("i", "a")
        await self.state.spend(whole("j"), [charge()])
        self.advance(-1e6)
        self.assertEqual((await self.state.spend(whole("k"), [charge()])).used, (3,))
        self.advance(HELD - 1)
        self.assertEqual(await self.used(), 3)
        self.advance(1)
        self.assertEqual(await self.used(), 2)
