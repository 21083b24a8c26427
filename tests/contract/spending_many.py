"""What every LiveState promises about a message with several charges: accounts, windows and units."""

from __future__ import annotations

from collections.abc import Sequence

from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Account, Charge, Spent, Unit
from tests.contract.spending_case import ACCEPTED, EXCEEDED, REPEATED, TOO_SOON, SpendingCase
from tests.support.charges import charge, rcpt, usage_of, whole, window_of
from tests.support.odd_names import ODD_NAMES

HOUR, DAY = 3600.0, 86400.0


def levels(amount: int = 1, hour: int = 10, day: int = 10, pool: int = 10, everybody: int = 10) -> list[Charge]:
    """Return what a message costs its user in an hour and in a day, its domain, and everybody."""
    return [
        charge("bob", amount, hour, HOUR),
        charge("bob", amount, day, DAY),
        charge("example.org", amount, pool, DAY, space="pool"),
        charge("", amount, everybody, HOUR, space="everybody"),
    ]


class ManyChargesContract(SpendingCase):
    """Counting a message in several windows and accounts: all or nothing."""

    async def spend(self, instance: str, charges: Sequence[Charge]) -> Spent:
        """Count a whole message; what peek says is the same."""
        peeked = await self.state.peek(whole(instance), charges)
        spent = await self.state.spend(whole(instance), charges)
        if instance:
            self.assertEqual(peeked, spent)
        return spent

    async def contents(self, charges: Sequence[Charge]) -> list[int]:
        return [each.used for each in await self.state.usage([window_of(each) for each in charges])]

    def assertDecided(self, spent: Spent, outcome: Outcome, decisive: int, used: tuple[int, ...], wait: float) -> None:
        self.assertEqual(spent[:3], (outcome, decisive, used))
        self.assertAlmostEqual(spent.wait, wait, places=3)

    async def test_a_message_counts_in_all_its_accounts(self) -> None:
        self.assertDecided(await self.spend("i", levels(3)), ACCEPTED, -1, (3, 3, 3, 3), 0)
        self.assertDecided(await self.spend("i", levels(3)), REPEATED, -1, (3, 3, 3, 3), 0)
        self.assertDecided(await self.spend("j", levels(2)), ACCEPTED, -1, (5, 5, 5, 5), 0)
        self.assertDecided(await self.spend("j", levels(1)), ACCEPTED, -1, (4, 4, 4, 4), 0)

    async def test_a_message_that_does_not_fit_one_account_counts_in_none(self) -> None:
        for number in range(4):
            limits = [10] * 4
            limits[number] = 1
            charges = levels(1, *limits)
            await self.spend(f"first{number}", levels())
            used = (number + 1,) * 4
            wait = DAY if number in (1, 2) else HOUR
            self.assertDecided(await self.spend(f"i{number}", charges), EXCEEDED, number, used, wait)
            self.assertEqual(await self.contents(charges), list(used))

    async def test_a_recipient_too_many_in_one_account_is_counted_in_none(self) -> None:
        charges = levels(pool=2)
        for recipient in "ab":
            await self.state.spend(rcpt("i", recipient), charges)
        refused = await self.state.spend(rcpt("i", "c"), charges)
        self.assertDecided(refused, EXCEEDED, 2, (2, 2, 2, 2), DAY)
        self.assertEqual((await self.state.spend(rcpt("i", "b"), charges)).outcome, REPEATED)
        # It was not remembered anywhere.
        self.assertDecided(await self.state.spend(rcpt("i", "c"), levels()), ACCEPTED, -1, (3, 3, 3, 3), 0)

    async def test_what_is_refused_as_a_whole_is_given_back_to_all_accounts(self) -> None:
        charges = levels(6, pool=5)
        for recipient in "ab":
            await self.state.spend(rcpt("i", recipient), charges)
        await self.spend("j", levels())
        self.assertDecided(await self.spend("i", charges), EXCEEDED, 2, (1, 1, 1, 1), 0)
        self.assertEqual(await self.contents(charges), [1, 1, 1, 1])

    async def test_what_is_refused_as_too_soon_is_given_back_to_the_accounts_that_had_counted_it(self) -> None:
        pool = charge("example.org", min_delta=10.0, space="pool")
        await self.spend("j", [pool])
        await self.state.spend(rcpt("i", "a"), [charge()])
        self.assertDecided(await self.spend("i", [charge(), pool]), TOO_SOON, 1, (0, 1), 10)
        self.assertEqual(await self.used(), 0)

    async def test_an_account_that_comes_in_later_counts_all_of_a_message(self) -> None:
        await self.spend("i", levels(3)[:2])
        self.assertDecided(await self.spend("i", levels(3)), ACCEPTED, -1, (3, 3, 3, 3), 0)
        self.assertDecided(await self.spend("i", levels(3)), REPEATED, -1, (3, 3, 3, 3), 0)

    async def test_of_several_that_do_not_fit_that_with_the_longest_wait_is_told(self) -> None:
        charges = [charge(limit=1, window=HOUR), charge(limit=2, window=DAY), charge(limit=3, window=HOUR)]
        await self.spend("i", charges)
        self.assertDecided(await self.spend("j", charges), EXCEEDED, 0, (1, 1, 1), HOUR)
        self.advance(HOUR)
        await self.spend("j", charges)
        self.assertDecided(await self.spend("k", charges), EXCEEDED, 1, (1, 2, 1), DAY - HOUR)
        self.advance(DAY - HOUR - 60)
        await self.spend("", [charge(limit=10)] * 2)
        self.assertDecided(await self.spend("k", charges), EXCEEDED, 0, (1, 3, 1), HOUR)

    async def test_one_that_no_wait_helps_comes_before_the_longest_wait(self) -> None:
        await self.spend("i", levels())
        charges = levels(4, hour=4, day=4, pool=3)
        self.assertDecided(await self.spend("j", charges), EXCEEDED, 2, (1, 1, 1, 1), 0)
        self.assertDecided(await self.spend("j", levels(day=0, everybody=0)), EXCEEDED, 1, (1, 1, 1, 1), 0)

    async def test_of_equal_waits_the_first_is_told(self) -> None:
        charges = [charge(limit=9), charge(limit=1, window=DAY), charge(limit=1, window=DAY)]
        await self.spend("i", charges)
        self.assertDecided(await self.spend("j", charges), EXCEEDED, 1, (1, 1, 1), DAY)

    async def test_too_soon_and_exceeded_are_compared_by_their_wait(self) -> None:
        charges = [charge(limit=1, window=50.0), charge("alice", min_delta=20.0)]
        await self.spend("i", charges)
        self.assertDecided(await self.spend("j", charges), EXCEEDED, 0, (1, 1), 50)
        self.advance(40)
        await self.spend("k", charges[1:])
        self.assertDecided(await self.spend("j", charges), TOO_SOON, 1, (1, 2), 20)

    async def test_two_limits_of_one_window_may_differ(self) -> None:
        charges = [charge(limit=3), charge(limit=2)]
        for number in range(2):
            await self.spend(f"i{number}", charges)
        self.assertDecided(await self.spend("j", charges), EXCEEDED, 1, (2, 2), 1000)
        self.assertDecided(await self.spend("j", charges[:1]), ACCEPTED, -1, (3,), 0)

    async def test_windows_of_one_account_let_go_one_after_the_other(self) -> None:
        charges = [charge(window=seconds, limit=3) for seconds in (10.0, 100.0)]
        await self.spend("i", charges)
        self.advance(5)
        await self.spend("j", charges)
        self.advance(5)
        self.assertDecided(await self.spend("k", charges), ACCEPTED, -1, (2, 3), 0)
        self.assertDecided(await self.spend("l", charges), EXCEEDED, 1, (2, 3), 90)
        self.advance(90)
        self.assertEqual(await self.contents(charges), [0, 2])
        self.assertDecided(await self.spend("l", charges), ACCEPTED, -1, (1, 3), 0)

    async def test_a_message_that_has_left_a_short_window_costs_nothing_more_there(self) -> None:
        charges = [charge(window=10.0, limit=1), charge(window=100.0, limit=9)]
        await self.state.spend(rcpt("i", "a"), charges)
        self.advance(10)
        await self.spend("j", charges)
        self.assertDecided(await self.state.spend(rcpt("i", "a"), charges), REPEATED, -1, (1, 2), 0)
        self.assertDecided(await self.state.spend(rcpt("i", "b"), charges), ACCEPTED, -1, (1, 3), 0)
        self.advance(90)
        self.assertEqual(await self.contents(charges), [0, 1])

    async def test_what_is_given_back_leaves_every_window_that_contains_it(self) -> None:
        charges = [charge(window=10.0, limit=9), charge(window=100.0, limit=9)]
        for instance in ("i", "j"):
            await self.spend(instance, charges)
        self.advance(10)
        await self.spend("k", charges)
        too_much = [each._replace(amount=10) for each in charges]
        self.assertDecided(await self.spend("i", too_much), EXCEEDED, 1, (1, 2), 0)
        self.assertDecided(await self.spend("k", too_much), EXCEEDED, 0, (0, 1), 0)
        self.assertEqual(await self.contents(charges), [0, 1])

    async def test_a_window_that_is_new_to_an_account_finds_what_was_counted(self) -> None:
        for number in range(5):
            await self.spend(f"i{number}", [charge(window=100.0, limit=99)])
            self.advance(10)
        for seconds, used in ((15.0, 2), (30.0, 4), (45.0, 7)):
            spent = await self.spend(f"new{used}", [charge(window=100.0, limit=99), charge(window=seconds, limit=99)])
            self.assertEqual(spent.used[1], used)
        self.advance(55)
        self.assertEqual(await self.contents([charge(window=100.0), charge(window=60.0)]), [7, 3])

    async def test_a_window_that_was_away_for_longer_than_it_is_has_counted_all_the_same(self) -> None:
        both = [charge(window=200.0, limit=99), charge(window=50.0, limit=99)]
        await self.spend("i", both)
        for number in range(8):
            self.advance(10)
            await self.spend(f"away{number}", both[:1])
        self.assertDecided(await self.spend("j", both), ACCEPTED, -1, (10, 6), 0)
        self.advance(45)
        self.assertEqual(await self.contents(both), [10, 2])

    async def test_when_the_longest_window_vanishes_the_shorter_ones_stay_right(self) -> None:
        both = [charge(window=50.0, limit=99), charge(window=200.0, limit=99)]
        for number in range(30):
            await self.spend(f"i{number}", both if number < 10 else both[:1])
            self.advance(10)
        self.assertEqual(await self.contents(both[:1]), [4])
        self.assertDecided(await self.spend("last", both[:1]), ACCEPTED, -1, (5,), 0)

    async def test_a_window_that_grows_finds_what_it_may_still_contain(self) -> None:
        await self.spend("i", [charge(window=50.0)])
        self.advance(40)
        await self.spend("j", [charge(window=500.0)])
        self.advance(400)
        self.assertDecided(await self.spend("k", [charge(window=500.0)]), ACCEPTED, -1, (3,), 0)
        self.advance(60)
        self.assertDecided(await self.spend("l", [charge(window=500.0)]), ACCEPTED, -1, (3,), 0)

    async def test_spaces_and_names_of_accounts_are_told_apart(self) -> None:
        accounts = [Account(space, name) for name in ODD_NAMES for space in ("oqp", "pool", "limit:é {x}:1")]
        for number, account in enumerate(accounts, 1):
            one = charge(amount=number, limit=100)._replace(account=account)
            self.assertEqual((await self.spend("i", [one])).used, (number,))
        found = await self.contents([charge()._replace(account=account) for account in accounts])
        self.assertEqual(found, list(range(1, len(accounts) + 1)))

    async def test_space_and_name_are_not_run_together(self) -> None:
        await self.spend("i", [charge("c", space="ab")])
        others = [charge("bc", space="a"), charge("c:d", space="ab"), charge("d", space="ab:c"), charge("", space="ab")]
        self.assertEqual(await self.contents(others), [0] * len(others))

    async def test_a_reset_of_several_windows_tells_of_each_and_deletes_the_accounts(self) -> None:
        charges = levels()
        await self.spend("i", charges)
        self.advance(HOUR)
        await self.spend("j", charges)
        self.assertEqual(await self.state.reset([window_of(each) for each in charges[:3]]), [1, 2, 2])
        self.assertEqual(await self.contents(charges), [0, 0, 0, 1])
        self.assertDecided(await self.spend("j", charges), ACCEPTED, -1, (1, 1, 1, 1), 0)

    async def test_windows_stay_right_when_the_clock_is_set_back(self) -> None:
        charges = [charge(window=10.0, limit=9), charge(window=100.0, limit=9)]
        await self.spend("old", charges)
        self.advance(50)
        for instance in ("i", "j"):
            await self.spend(instance, charges)
        self.advance(-20)
        self.assertDecided(await self.spend("k", charges), ACCEPTED, -1, (3, 4), 0)
        self.advance(10)
        self.assertEqual(await self.contents(charges), [0, 4])
        self.advance(60)
        self.assertEqual(await self.contents(charges), [0, 3])
        self.advance(30)
        self.assertEqual(await self.contents(charges), [0, 0])

    async def test_units_of_one_message_are_counted_beside_each_other(self) -> None:
        charges = [
            charge("messages", 1, unit=Unit.MESSAGES),
            charge("recipients", 3, unit=Unit.RECIPIENTS),
            charge("bytes", 3000, limit=10**6, unit=Unit.BYTES),
            charge("distinct", 0, unit=Unit.DISTINCT_RECIPIENTS),
        ]
        for recipient, outcome, used in (
            ("a", ACCEPTED, (1, 1, 3000, 1)),
            ("b", ACCEPTED, (1, 2, 3000, 2)),
            ("a", REPEATED, (1, 2, 3000, 2)),
        ):
            self.assertDecided(await self.state.spend(rcpt("i", recipient), charges), outcome, -1, used, 0)
        self.assertDecided(await self.spend("i", charges), ACCEPTED, -1, (1, 3, 3000, 2), 0)
        self.assertDecided(await self.spend("i", charges), REPEATED, -1, (1, 3, 3000, 2), 0)

    async def test_bytes_of_a_year_are_counted_to_the_last_one(self) -> None:
        year = [charge(amount=2**50 + 1, limit=2**53, window=366 * DAY, unit=Unit.BYTES)]
        for number in range(7):
            await self.spend(f"i{number}", year)
        self.assertDecided(await self.spend("more", year), EXCEEDED, 0, (7 * 2**50 + 7,), 366 * DAY)
        self.assertEqual(await self.contents(year), [7 * 2**50 + 7])

    async def test_ten_charges_are_one_decision(self) -> None:
        charges = [charge(f"user{number}", limit=2) for number in range(10)]
        for number in range(2):
            self.assertEqual((await self.spend(f"i{number}", charges)).used, (number + 1,) * 10)
        self.assertDecided(await self.spend("j", charges), EXCEEDED, 0, (2,) * 10, 1000)
        self.assertEqual((await usage_of(self.state, "user9")).used, 2)
