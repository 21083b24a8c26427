"""What every LiveState promises about distinct recipients."""

from __future__ import annotations

from chapps_tw.interfaces.state import Charge, Message, Spent, Unit
from tests.contract.spending_case import ACCEPTED, EXCEEDED, REPEATED, SpendingCase
from tests.support.charges import charge, rcpt, whole, window_of
from tests.support.odd_names import ODD_NAMES


def distinct(limit: int = 3, window: float = 1000.0, name: str = "bob", **others: int) -> Charge:
    return charge(name, 0, limit, window, Unit.DISTINCT_RECIPIENTS, space="distinct", **others)


class DistinctRecipientsContract(SpendingCase):
    """Counting the different recipients of all messages."""

    async def to(self, recipient: str, *charges: Charge, instance: str = "") -> Spent:
        return await self.state.spend(rcpt(instance or f"to {recipient}", recipient), charges or [distinct()])

    async def test_a_recipient_of_many_messages_counts_once(self) -> None:
        for recipient, outcome, used in (
            ("a", ACCEPTED, 1),
            ("b", ACCEPTED, 2),
            ("a", REPEATED, 2),
            ("c", ACCEPTED, 3),
            ("d", EXCEEDED, 3),
            ("c", REPEATED, 3),
        ):
            spent = await self.to(recipient, instance=f"another{used}")
            self.assertEqual((spent.outcome, spent.used), (outcome, (used,)))

    async def test_a_recipient_counts_from_the_last_message_to_it(self) -> None:
        await self.to("a")
        self.advance(600)
        await self.to("b")
        await self.to("a")
        self.advance(600)
        await self.to("c")
        refused = await self.to("d")
        self.assertEqual(refused, Spent(EXCEEDED, 0, (3,), 400.0))
        self.advance(400)
        self.assertEqual((await self.to("d")).used, (2,))

    async def test_a_message_that_is_refused_does_not_count_as_one_to_its_recipient(self) -> None:
        await self.to("a")
        self.advance(600)
        self.assertEqual((await self.to("a", distinct(), charge(limit=0))).outcome, EXCEEDED)
        await self.state.peek(rcpt("i", "a"), [distinct()])
        self.advance(400)
        [usage] = await self.state.usage([window_of(distinct())])
        self.assertEqual(usage.used, 0)

    async def test_recipients_are_never_given_back(self) -> None:
        charges = [distinct(), charge(limit=5)]
        for recipient in "ab":
            await self.to(recipient, *charges, instance="i")
        refused = await self.state.spend(whole("i"), [charges[0], charges[1]._replace(amount=9)])
        self.assertEqual((refused.outcome, refused.used), (EXCEEDED, (2, 0)))

    async def test_a_message_that_names_no_recipient_costs_nothing(self) -> None:
        self.assertEqual(await self.state.spend(whole("i"), [distinct(limit=0)]), Spent(REPEATED, -1, (0,), 0.0))

    async def test_a_whole_message_may_name_its_recipient(self) -> None:
        for message, outcome in ((whole("i", "a"), ACCEPTED), (whole("j", "a"), REPEATED)):
            spent = await self.state.spend(message, [distinct()])
            self.assertEqual((spent.outcome, spent.used), (outcome, (1,)))

    async def test_of_no_recipients_none_fits_and_no_wait_helps(self) -> None:
        self.assertEqual(await self.to("a", distinct(limit=0)), Spent(EXCEEDED, 0, (0,), 0.0))

    async def test_there_is_no_margin_and_no_least_time(self) -> None:
        loose = distinct(limit=1, margin=5, min_delta=100)
        await self.to("a", loose)
        self.assertEqual(await self.to("b", loose), Spent(EXCEEDED, 0, (1,), 1000.0))

    async def test_windows_of_one_account_see_a_recipient_each_for_its_time(self) -> None:
        both = (distinct(9, 10.0), distinct(9, 100.0))
        await self.to("a", *both)
        await self.to("b", *both)
        self.advance(10)
        self.assertEqual((await self.to("a", *both))[:3], (ACCEPTED, -1, (1, 2)))
        self.assertEqual((await self.to("a", *both))[:3], (REPEATED, -1, (1, 2)))
        self.advance(90)
        self.assertEqual((await self.to("c", *both))[:3], (ACCEPTED, -1, (1, 2)))

    async def test_one_that_has_left_a_short_window_must_fit_there_again(self) -> None:
        both = (distinct(1, 10.0), distinct(9, 100.0))
        await self.to("a", *both)
        self.advance(10)
        await self.to("b", *both)
        self.assertEqual(await self.to("a", *both), Spent(EXCEEDED, 0, (1, 2), 10.0))

    async def test_a_window_that_is_new_finds_the_recipients(self) -> None:
        for recipient in "abcd":
            await self.to(recipient, distinct(9, 100.0))
            self.advance(10)
        self.assertEqual((await self.to("e", distinct(9, 100.0), distinct(9, 25.0))).used, (5, 3))

    async def test_recipients_are_told_apart_exactly(self) -> None:
        for outcome in (ACCEPTED, REPEATED):
            for recipient in (*ODD_NAMES, "A", "a"):
                self.assertEqual((await self.to(recipient, distinct(100))).outcome, outcome, recipient[:9])

    async def test_usage_and_reset(self) -> None:
        await self.to("a")
        [first] = await self.state.usage([window_of(distinct())])
        self.advance(10)
        await self.to("b")
        [usage] = await self.state.usage([window_of(distinct())])
        self.assertEqual(usage, (2, first.last + 10, first.last))
        self.advance(5)
        await self.to("a")
        [usage] = await self.state.usage([window_of(distinct())])
        self.assertEqual(usage, (2, first.last + 15, first.last + 10))
        self.assertEqual(await self.state.reset([window_of(distinct()), window_of(distinct(window=5.0))]), [2, 1])
        self.assertEqual(await self.state.usage([window_of(distinct())]), [(0, 0.0, 0.0)])

    async def test_a_clock_that_is_set_back_lets_them_count_from_then_on(self) -> None:
        await self.to("a")
        self.advance(1e6)
        for recipient in "bc":
            await self.to(recipient)
        self.advance(-1e6)
        self.assertEqual(await self.to("b"), Spent(REPEATED, -1, (2,), 0.0))
        self.advance(999)
        self.assertEqual((await self.to("d")).used, (3,))
        self.advance(1)
        self.assertEqual((await self.to("e")).used, (2,))

    async def test_they_are_there_after_a_restart(self) -> None:
        messages: list[Message] = [rcpt("i", recipient) for recipient in "ab"]
        for message in messages:
            await self.state.spend(message, [distinct()])
        await self.restart()
        self.assertEqual((await self.to("a")).outcome, REPEATED)
        self.assertEqual((await self.to("c")).used, (3,))
        self.assertEqual((await self.to("d")).outcome, EXCEEDED)
