"""What every LiveState promises about a message that has one charge."""

from __future__ import annotations

from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Charge, Message, Spent, Usage
from tests.contract.spending_case import ACCEPTED, EXCEEDED, REPEATED, TOO_SOON, SpendingCase
from tests.support.charges import LIMIT, WINDOW, charge, rcpt, whole, window_of
from tests.support.odd_names import ODD_NAMES


class SpendingContract(SpendingCase):
    """Counting the messages of a user in one window."""

    async def rcpt(self, instance: str, recipient: str, limit: int = LIMIT, user: str = "bob") -> Spent:
        return await self.state.spend(rcpt(instance, recipient), [charge(user, limit=limit)])

    async def whole(self, instance: str, amount: int = 0, limit: int = LIMIT, user: str = "bob") -> Spent:
        return await self.state.spend(whole(instance), [charge(user, amount, limit)])

    def assertSpent(self, spent: Spent, outcome: Outcome, used: int, wait: float = 0.0) -> None:
        decisive = -1 if outcome in (ACCEPTED, REPEATED) else 0
        self.assertEqual(spent[:3], (outcome, decisive, (used,)))
        self.assertAlmostEqual(spent.wait, wait, places=3)

    async def test_a_limit_of_n_lets_exactly_n_messages_through(self) -> None:
        outcomes = [(await self.rcpt(f"i{number}", "a")).outcome for number in range(LIMIT + 2)]
        self.assertEqual(outcomes, [ACCEPTED] * LIMIT + [EXCEEDED] * 2)
        self.assertEqual(await self.used(), LIMIT)

    async def test_a_limit_of_nothing_lets_nothing_through(self) -> None:
        self.assertSpent(await self.rcpt("i", "a", limit=0), EXCEEDED, 0)
        self.assertSpent(await self.state.spend(whole("i"), [charge(limit=0, margin=9)]), EXCEEDED, 0)

    async def test_each_recipient_counts_once(self) -> None:
        self.assertSpent(await self.rcpt("i", "a"), ACCEPTED, 1)
        self.assertSpent(await self.rcpt("i", "b"), ACCEPTED, 2)
        self.assertSpent(await self.rcpt("i", "a"), REPEATED, 2)
        self.assertSpent(await self.rcpt("j", "a"), ACCEPTED, 3)

    async def test_recipients_are_told_apart_exactly(self) -> None:
        names = [*ODD_NAMES, "a", "a b", "b", "A", "ab", "1", "11"]
        for number, name in enumerate(names, 1):
            self.assertSpent(await self.rcpt("i", name, 100), ACCEPTED, number)
        for name in names:
            self.assertSpent(await self.rcpt("i", name, 100), REPEATED, len(names))

    async def test_a_whole_message_costs_what_it_says_once(self) -> None:
        self.assertSpent(await self.whole("i", 3), ACCEPTED, 3)
        self.assertSpent(await self.whole("i", 3), REPEATED, 3)
        self.assertSpent(await self.whole("i"), REPEATED, 3)

    async def test_a_message_that_does_not_say_costs_one(self) -> None:
        self.assertSpent(await self.whole("i"), ACCEPTED, 1)
        self.assertSpent(await self.whole("i"), REPEATED, 1)

    async def test_the_last_stage_that_is_asked_has_the_say(self) -> None:
        await self.rcpt("i", "a")
        await self.rcpt("i", "b")
        self.assertSpent(await self.whole("i", 2), REPEATED, 2)
        self.assertSpent(await self.whole("i", 4), ACCEPTED, 4)
        self.assertSpent(await self.whole("i", 1), ACCEPTED, 1)
        self.assertEqual(await self.used(), 1)

    async def test_a_cost_that_falls_is_accepted_over_the_limit(self) -> None:
        await self.whole("i", 5)
        await self.whole("j", 5, limit=10)
        self.assertSpent(await self.whole("j", 4), ACCEPTED, 9)
        self.assertSpent(await self.whole("j", 4), REPEATED, 9)

    async def test_recipients_are_remembered_when_the_whole_message_was_counted(self) -> None:
        await self.rcpt("i", "a")
        await self.whole("i", 3)
        self.assertSpent(await self.rcpt("i", "a"), REPEATED, 3)
        self.assertSpent(await self.rcpt("i", "b"), ACCEPTED, 4)

    async def test_a_whole_message_is_taken_entirely_or_not_at_all(self) -> None:
        await self.whole("i", 3)
        self.assertSpent(await self.whole("j", 3), EXCEEDED, 3, WINDOW)
        self.assertSpent(await self.whole("k", 2), ACCEPTED, 5)

    async def test_a_recipient_too_many_leaves_its_message_as_it_was(self) -> None:
        await self.rcpt("i", "a", 2)
        await self.rcpt("i", "b", 2)
        self.assertSpent(await self.rcpt("i", "c", 2), EXCEEDED, 2, WINDOW)
        self.assertSpent(await self.rcpt("i", "a", 2), REPEATED, 2)
        self.assertSpent(await self.rcpt("i", "c", 2), EXCEEDED, 2, WINDOW)

    async def test_a_message_refused_as_a_whole_gives_back_what_it_had_cost(self) -> None:
        await self.rcpt("i", "a")
        self.advance(10)
        await self.whole("j", 4)
        self.assertSpent(await self.whole("i", 2), EXCEEDED, 4, WINDOW)
        self.assertEqual(await self.used(), 4)
        self.assertSpent(await self.rcpt("i", "a"), ACCEPTED, 5)

    async def test_a_message_that_exceeds_the_limit_by_itself_need_not_wait(self) -> None:
        self.assertSpent(await self.whole("i", 9), EXCEEDED, 0)
        await self.rcpt("i", "a")
        await self.rcpt("j", "a")
        self.assertSpent(await self.whole("i", 9), EXCEEDED, 1)

    async def test_the_wait_is_until_the_oldest_message_leaves(self) -> None:
        await self.rcpt("i", "a", 2)
        self.advance(300)
        await self.rcpt("j", "a", 2)
        self.advance(100)
        self.assertSpent(await self.rcpt("k", "a", 2), EXCEEDED, 2, 600)
        self.assertSpent(await self.whole("k", 1, 2), EXCEEDED, 2, 600)

    async def test_a_message_does_not_wait_for_what_it_gave_back(self) -> None:
        await self.rcpt("i", "a")
        self.advance(300)
        await self.whole("j", 4)
        self.advance(100)
        self.assertSpent(await self.whole("i", 2), EXCEEDED, 4, 900)

    async def test_a_message_leaves_the_window_exactly_when_it_is_as_old(self) -> None:
        await self.whole("i", 2)
        self.advance(WINDOW - 0.25)
        await self.whole("j", 3)
        self.assertSpent(await self.rcpt("k", "a"), EXCEEDED, 5, 0.25)
        self.advance(0.25)
        self.assertEqual(await self.used(), 3)
        self.assertSpent(await self.rcpt("k", "a"), ACCEPTED, 4)
        self.advance(WINDOW - 0.5)
        self.assertEqual(await self.used(), 4)
        self.advance(0.25)
        self.assertEqual(await self.used(), 1)
        self.advance(0.25)
        self.assertEqual(await self.used(), 0)

    async def test_what_is_added_later_leaves_with_its_message(self) -> None:
        await self.rcpt("i", "a")
        self.advance(900)
        await self.rcpt("i", "b")
        self.advance(100)
        self.assertEqual(await self.used(), 0)
        self.assertSpent(await self.rcpt("i", "a"), ACCEPTED, 1)

    async def test_a_message_without_instance_is_one_of_its_own_each_time(self) -> None:
        for number in range(LIMIT):
            self.assertSpent(await self.rcpt("", "a"), ACCEPTED, number + 1)
        self.assertSpent(await self.whole("", 1), EXCEEDED, LIMIT, WINDOW)

    async def test_a_message_that_begins_below_the_limit_may_run_into_the_margin(self) -> None:
        await self.whole("i", 4)
        self.assertSpent(await self.state.spend(whole("j"), [charge(amount=4, margin=2)]), EXCEEDED, 4, WINDOW)
        self.assertSpent(await self.state.spend(whole("j"), [charge(amount=3, margin=2)]), ACCEPTED, 7)
        self.assertSpent(await self.state.spend(whole("k"), [charge(margin=2)]), EXCEEDED, 7, WINDOW)

    async def test_a_message_may_exceed_the_limit_by_the_margin_by_itself(self) -> None:
        self.assertSpent(await self.state.spend(whole("i"), [charge(amount=8, margin=2)]), EXCEEDED, 0)
        self.assertSpent(await self.state.spend(whole("i"), [charge(amount=7, margin=2)]), ACCEPTED, 7)

    async def test_a_message_at_the_limit_that_has_begun_may_go_on_into_the_margin(self) -> None:
        charges = [charge(margin=1)]
        for number in range(LIMIT + 1):
            self.assertSpent(await self.state.spend(rcpt("i", f"r{number}"), charges), ACCEPTED, number + 1)
        self.assertSpent(await self.state.spend(rcpt("i", "more"), charges), EXCEEDED, LIMIT + 1, WINDOW)

    async def apart(self, message: Message, amount: int = 1) -> Spent:
        """Count a message that must be 10 seconds after the last."""
        return await self.state.spend(message, [charge(amount=amount, min_delta=10.0)])

    async def test_messages_of_a_user_must_be_min_delta_apart(self) -> None:
        self.assertSpent(await self.apart(rcpt("i", "a")), ACCEPTED, 1)
        self.advance(4)
        self.assertSpent(await self.apart(rcpt("j", "a")), TOO_SOON, 1, 6)
        self.assertSpent(await self.apart(whole("")), TOO_SOON, 1, 6)
        self.assertSpent(await self.apart(rcpt("i", "b")), ACCEPTED, 2)
        self.assertSpent(await self.apart(rcpt("i", "a")), REPEATED, 2)
        self.advance(6)
        self.assertSpent(await self.apart(rcpt("j", "a")), ACCEPTED, 3)

    async def test_min_delta_may_be_longer_than_the_window(self) -> None:
        charges = [charge(window=10.0, min_delta=100.0)]
        self.assertSpent(await self.state.spend(whole("i"), charges), ACCEPTED, 1)
        self.advance(60)
        self.assertSpent(await self.state.spend(whole("j"), charges), TOO_SOON, 0, 40)
        self.advance(40)
        self.assertSpent(await self.state.spend(whole("j"), charges), ACCEPTED, 1)

    async def test_a_refused_message_does_not_start_min_delta(self) -> None:
        self.assertSpent(await self.apart(whole("i"), 9), EXCEEDED, 0)
        self.assertSpent(await self.apart(whole("j"), 5), ACCEPTED, 5)

    async def test_a_message_given_back_still_is_the_last_one(self) -> None:
        await self.apart(rcpt("i", "a"))
        self.assertSpent(await self.apart(whole("i"), 9), EXCEEDED, 0)
        self.assertSpent(await self.apart(rcpt("j", "a")), TOO_SOON, 0, 10)

    async def test_what_was_counted_while_the_clock_was_ahead_counts_from_now(self) -> None:
        await self.rcpt("before", "a")
        self.advance(1e6)
        for instance in ("i", "j"):
            await self.whole(instance, 2)
        self.advance(-1e6)
        usage = await self.usage()
        self.assertEqual((usage.used, usage.last), (4, usage.oldest))
        for ask in (self.state.peek, self.state.spend, self.state.peek):
            self.assertSpent(await ask(whole("k"), [charge(amount=2)]), EXCEEDED, 4, WINDOW)
        self.advance(WINDOW - 1)
        self.assertSpent(await self.rcpt("i", "a"), ACCEPTED, 5)
        self.assertSpent(await self.whole("j", 1), ACCEPTED, 4)
        self.advance(1)
        self.assertSpent(await self.rcpt("k", "a"), ACCEPTED, 1)

    async def test_peek_answers_as_spend_would_and_changes_nothing(self) -> None:
        await self.whole("i", 3)
        for message, amount in (
            (rcpt("i", "a"), 0),
            (whole("i"), 3),
            (whole("i"), 1),
            (whole("i"), 9),
            (whole("j"), 3),
            (whole("j"), 2),
            (whole(""), 0),
        ):
            seen = [await self.state.peek(message, [charge(amount=amount)]) for _ in range(2)]
            self.assertEqual(seen[0], seen[1])
            self.assertEqual(await self.used(), 3)
        self.assertSpent(await self.state.peek(whole("i"), [charge(amount=9)]), EXCEEDED, 0)
        self.assertSpent(await self.state.peek(whole("i"), [charge(amount=1)]), ACCEPTED, 1)
        self.advance(WINDOW)
        self.assertSpent(await self.state.peek(whole("i"), [charge(amount=5)]), ACCEPTED, 5)

    async def test_peek_sees_what_has_left_the_window(self) -> None:
        await self.whole("i", 3)
        self.advance(500)
        await self.whole("j", 2)
        self.advance(500)
        self.assertSpent(await self.state.peek(whole("k"), [charge(amount=4)]), EXCEEDED, 2, 500)
        self.assertSpent(await self.state.peek(whole("i"), [charge(amount=3)]), ACCEPTED, 5)
        self.assertSpent(await self.whole("i", 3), ACCEPTED, 5)

    async def test_usage_tells_of_each_window_in_order(self) -> None:
        await self.whole("i", 2, user="alice")
        began = (await self.usage("alice")).last
        self.advance(100)
        await self.whole("j", user="alice")
        await self.whole("i", 2, user="alice")
        asked: list[Charge] = [charge("bob"), charge("alice"), charge("nobody"), charge("alice", window=100.0)]
        bob, alice, nobody, short = await self.state.usage([window_of(each) for each in asked])
        self.assertGreater(began, 0)
        self.assertEqual([bob, nobody], [Usage(0, 0.0, 0.0)] * 2)
        self.assertEqual(alice, Usage(3, began + 100, began))
        self.assertEqual(short, Usage(1, began + 100, began + 100))
        self.assertEqual(await self.state.usage([]), [])

    async def test_the_last_message_is_known_when_the_window_is_empty(self) -> None:
        await self.whole("i")
        last = (await self.usage()).last
        await self.whole("i", 9)
        self.assertEqual(await self.usage(), Usage(0, last, 0.0))

    async def test_a_reset_forgets_what_was_counted_and_says_how_much(self) -> None:
        await self.whole("i", 3)
        await self.rcpt("j", "a")
        await self.whole("k", user="alice")
        self.assertEqual(await self.reset("bob"), [4])
        self.assertEqual(await self.usage(), Usage(0, 0.0, 0.0))
        self.assertEqual(await self.reset("bob", "nobody"), [0, 0])
        self.assertEqual(await self.state.reset([]), [])
        self.assertSpent(await self.apart(rcpt("j", "a")), ACCEPTED, 1)
        self.assertEqual(await self.used("alice"), 1)

    async def test_a_reset_counts_only_what_is_in_the_window(self) -> None:
        await self.whole("i", 3)
        self.advance(600)
        await self.whole("j", 2)
        self.advance(400)
        self.assertEqual(await self.reset("bob"), [2])

    async def test_users_with_odd_names_are_told_apart(self) -> None:
        for number, user in enumerate(ODD_NAMES, 1):
            self.assertSpent(await self.whole("i", number, 100, user), ACCEPTED, number)
        for number, user in enumerate(ODD_NAMES, 1):
            self.assertEqual(await self.used(user), number)

    async def test_instances_with_odd_names_are_told_apart(self) -> None:
        for number, instance in enumerate(ODD_NAMES, 1):
            self.assertSpent(await self.whole(instance, 1, 1000), ACCEPTED, number)
        for instance in ODD_NAMES:
            self.assertSpent(await self.whole(instance, 1, 1000), REPEATED, len(ODD_NAMES))

    async def test_a_cost_beyond_measure_is_refused_like_any_other(self) -> None:
        self.assertSpent(await self.whole("i", 10**30), EXCEEDED, 0)
        self.assertSpent(await self.whole("i", 3, 10**30), ACCEPTED, 3)
