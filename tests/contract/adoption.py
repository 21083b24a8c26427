"""What every live state promises about what it takes over from another service."""

from __future__ import annotations

from typing import cast

from chapps_tw.interfaces.adoption import AdoptingState, PastCounts, PastMessage, PastTally, PastTuple
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Account, Usage
from tests.contract.greylisting import EARLY, FIRST, GREYLIST_RULES, KNOWN_CLIENT, PASSED, GreylistContract
from tests.contract.spending_case import ACCEPTED, EXCEEDED
from tests.support.charges import SPACE, WINDOW, charge, rcpt, usage_of, whole
from tests.support.odd_names import ODD_NAMES

CLIENT, SENDER, RECIPIENT = "192.0.2.0/24", "s@example.net", "r@our.example"


class AdoptionContract(GreylistContract):
    """Taking over counts, tuples and tallies."""

    now: float

    async def test_adopted_messages_count_at_their_own_time(self) -> None:
        now = self.now
        self.assertEqual(await self._count(("a", 900.0, 2), ("b", 100.0, 1)), 2)
        self.assertEqual(await usage_of(self.state), Usage(3, now - 100, now - 900))
        self.advance(99)
        self.assertEqual((await usage_of(self.state)).used, 3)
        self.advance(2)
        self.assertEqual((await usage_of(self.state)).used, 1)
        self.advance(800)
        self.assertEqual((await usage_of(self.state)).used, 0)

    async def test_counting_goes_on_from_what_was_adopted(self) -> None:
        await self._count(("a", 900.0, 3))
        charges = [charge(limit=5)]
        self.assertEqual((await self.state.spend(rcpt("i", "x"), charges)).used, (4,))
        self.assertEqual((await self.state.spend(whole("i", "x"), [charge(limit=5, amount=2)])).used, (5,))
        refused = await self.state.spend(whole("j"), charges)
        self.assertEqual(refused.outcome, EXCEEDED)
        self.assertAlmostEqual(refused.wait, 100, places=3)
        self.advance(101)
        self.assertEqual((await self.state.spend(whole("j"), charges)).used, (3,))

    async def test_adopting_twice_counts_once(self) -> None:
        self.assertEqual(await self._count(("a", 900.0, 1), ("b", 800.0, 2)), 2)
        self.assertEqual(await self._count(("a", 900.0, 1), ("b", 800.0, 2), ("c", 10.0, 1)), 1)
        await self.restart_in_file()
        self.assertEqual(await self._count(("a", 900.0, 1), ("b", 800.0, 2), ("c", 10.0, 1)), 0)
        self.assertEqual((await usage_of(self.state)).used, 4)

    async def test_messages_are_adopted_between_those_that_were_counted_meanwhile(self) -> None:
        await self._count(("a", 900.0, 1))
        for number in range(3):
            self.advance(100)
            await self.state.spend(whole(f"own{number}"), [charge(limit=100, amount=10)])
        # As of now, the adopted one is 1200 seconds old, and the own ones 200, 100 and 0.
        self.assertEqual(await self._count(("b", 950.0, 1), ("c", 150.0, 2), ("d", 100.0, 3), ("e", 50.0, 4)), 4)
        self.assertEqual(await usage_of(self.state), Usage(40, self.now, self.now - 950))
        await self.restart_in_file()
        self.assertEqual((await usage_of(self.state)).used, 40)
        self.assertEqual((await usage_of(self.state, window=120)).used, 27)
        self.advance(60)
        self.assertEqual((await usage_of(self.state)).used, 39)
        again = await self.state.spend(whole("own1"), [charge(limit=100, amount=5)])
        self.assertEqual((again.outcome, again.used), (ACCEPTED, (34,)))

    async def test_reservations_and_recipients_of_messages_stay(self) -> None:
        await self.state.spend(rcpt("i", "x", reserve=300), [charge(limit=100)])
        self.advance(10)
        await self.state.spend(rcpt("j", "x"), [charge(limit=100)])
        await self._count(("a", 500.0, 5), ("b", 5.0, 1))
        await self.restart_in_file()
        repeated = await self.state.spend(rcpt("j", "x"), [charge(limit=100)])
        self.assertEqual((repeated.outcome, repeated.used), (Outcome.REPEATED, (8,)))
        self.advance(300)
        self.assertEqual((await usage_of(self.state)).used, 7)

    async def test_messages_that_have_left_the_window_are_left_out(self) -> None:
        self.assertEqual(await self._count(("old", WINDOW + 1, 9), ("a", 1.0, 1)), 1)
        self.assertEqual((await usage_of(self.state)).used, 1)

    async def test_messages_of_the_future_count_as_now(self) -> None:
        await self._count(("a", -5000.0, 1))
        self.assertEqual(await usage_of(self.state), Usage(1, self.now, self.now))

    async def test_more_than_the_limit_is_adopted(self) -> None:
        await self._count(("a", 5.0, 70))
        self.assertEqual((await self.state.spend(whole("i"), [charge(limit=5)])).used, (70,))

    async def test_many_accounts_are_adopted_at_once(self) -> None:
        names = [*ODD_NAMES, *(f"user{number}" for number in range(300))]
        past = [PastCounts(Account(SPACE, name), WINDOW, [PastMessage("a", self.now - 5, 3)]) for name in names]
        self.assertEqual(await self.adopting.adopt_counts(past), len(names))
        for name in names:
            self.assertEqual((await usage_of(self.state, name)).used, 3)
        self.assertEqual(await self.adopting.adopt_counts([]), 0)

    async def test_an_account_with_thousands_of_messages_is_adopted_in_parts(self) -> None:
        parts = [[PastMessage(f"m{n}", self.now - 900 + n / 10, 1) for n in range(k, k + 500)] for k in (0, 500, 1000)]
        await self.state.spend(whole("own"), [charge(limit=10**6, amount=1)])
        for part in parts:
            past = PastCounts(Account(SPACE, "bob"), WINDOW, part)
            self.assertEqual(await self.adopting.adopt_counts([past]), 500)
        self.assertEqual((await usage_of(self.state)).used, 1501)
        self.advance(150)
        self.assertEqual((await usage_of(self.state)).used, 1001 - 1)

    async def test_a_tuple_that_was_deferred_elsewhere_passes(self) -> None:
        await self.flag()
        self.assertEqual(await self._tuples((30.0, "a@x"), (61.0, "b@x")), 2)
        early = await self.check_greylist(self.mail(sender="a@x"))
        self.assertMet(early, EARLY, wait=30)
        self.assertMet(await self.check_greylist(self.mail(sender="b@x")), PASSED, tally=1)
        self.assertMet(await self.check_greylist(self.mail(sender="c@x")), FIRST, wait=60, tally=1)
        self.advance(31)
        self.assertMet(await self.check_greylist(self.mail(sender="a@x", instance="j")), PASSED, tally=2)

    async def test_a_tuple_is_adopted_once(self) -> None:
        self.assertEqual(await self._tuples((61.0, "a@x")), 1)
        self.assertEqual(await self._tuples((61.0, "a@x")), 0)
        self.assertAlmostEqual(await self.state.last_attempt(CLIENT, "a@x", RECIPIENT), self.now - 61, places=3)

    async def test_the_earlier_attempt_counts_and_none_gets_older(self) -> None:
        await self.flag()
        await self.check_greylist(self.mail())
        self.assertEqual(await self._tuples((40.0, SENDER)), 1)
        self.assertMet(await self.check_greylist(), EARLY, wait=20)
        self.assertEqual(await self._tuples((10.0, SENDER)), 0)
        self.assertMet(await self.check_greylist(), EARLY, wait=20)

    async def test_a_tuple_that_would_have_expired_is_left_out(self) -> None:
        await self.flag()
        self.assertEqual(await self._tuples((601.0, SENDER)), 0)
        self.assertMet(await self.check_greylist(), FIRST, wait=60)

    async def test_an_adopted_tuple_expires(self) -> None:
        await self.flag()
        await self._tuples((500.0, SENDER))
        self.advance(101)
        self.assertMet(await self.check_greylist(), FIRST, wait=60)

    async def test_an_adopted_tally_counts(self) -> None:
        await self.flag()
        self.assertEqual(await self._tally(("i", 500.0), ("j", 400.0)), 2)
        self.assertEqual(await self._tally(("i", 500.0), ("j", 400.0)), 0)
        self.assertMet(await self.check_greylist(), FIRST, wait=60, tally=2)
        self.assertEqual(await self._tally(("k", 300.0)), 1)
        self.assertMet(await self.check_greylist(self.mail(sender="x@y", instance="l")), KNOWN_CLIENT, tally=3)

    async def test_the_newest_messages_of_a_tally_are_kept(self) -> None:
        await self._tally(("a", 50.0), ("b", 40.0), ("c", 30.0), ("d", 20.0), ("e", 10.0))
        found = await self.state.tally(CLIENT)
        self.assertEqual([name for name, _ in found], ["c", "d", "e"])
        self.assertAlmostEqual(found[0][1], self.now - 30, places=3)

    async def test_a_tally_expires_after_its_last_message(self) -> None:
        await self._tally(("old", 601.0), ("i", 500.0))
        self.assertEqual(len(await self.state.tally(CLIENT)), 1)
        self.advance(101)
        self.assertEqual(await self.state.tally(CLIENT), [])
        self.assertEqual(await self._tally(("j", 10.0)), 1)
        self.assertEqual([name for name, _ in await self.state.tally(CLIENT)], ["j"])

    @property
    def adopting(self) -> AdoptingState:
        return cast(AdoptingState, self.state)

    async def _count(self, *messages: tuple[str, float, int]) -> int:
        """Adopt messages: instance, how many seconds ago, amount."""
        past = [PastMessage(instance, self.now - ago, amount) for instance, ago, amount in messages]
        return await self.adopting.adopt_counts([PastCounts(Account(SPACE, "bob"), WINDOW, past)])

    async def _tuples(self, *tuples: tuple[float, str]) -> int:
        """Adopt tuples: how many seconds ago, sender."""
        past = [PastTuple(CLIENT, sender, RECIPIENT, self.now - ago) for ago, sender in tuples]
        return await self.adopting.adopt_tuples(past, GREYLIST_RULES)

    async def _tally(self, *messages: tuple[str, float]) -> int:
        """Adopt messages of a tally: instance, how many seconds ago."""
        past = [(instance, self.now - ago) for instance, ago in messages]
        return await self.adopting.adopt_tallies([PastTally(CLIENT, past)], GREYLIST_RULES)

    async def restart_in_file(self) -> None:
        """Restart, unless all is in memory."""
        if self.another() is not self.state:
            await self.restart()
