"""What every LiveState promises about counting transmissions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chapps_tw.interfaces.state import NO_QUOTA, UNKNOWN_USER, Fill, LiveState, Outcome, Rules, Spend, Spent, Usage
from tests.support.odd_names import ODD_NAMES

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as Base
else:
    Base = object

INTERVAL = 1000.0
RULES = Rules(interval=INTERVAL, margin_count=0, margin_ratio=0.0, min_delta=0.0)
LIMIT = 5
MISSING, ACCEPTED, REPEATED, EXCEEDED, TOO_SOON = (
    Outcome.MISSING,
    Outcome.ACCEPTED,
    Outcome.REPEATED,
    Outcome.EXCEEDED,
    Outcome.TOO_SOON,
)


class SpendingContract(Base):
    """Counting transmissions.

    Whoever mixes it in provides ``state``, made anew for each test, and ``advance``.
    """

    state: LiveState

    def advance(self, seconds: float) -> None:
        """Let the state's time go on."""
        raise NotImplementedError

    async def limit(self, user: str = "bob", limit: int = LIMIT, ttl: float = 86400.0) -> None:
        """Have the state keep a limit, without counting anything."""
        token = (await self.state.peek_spend(Spend(user, "", "", 0), RULES)).token
        await self.state.spend(Spend(user, "", "", 2**40), RULES, Fill(token, limit, ttl))

    async def rcpt(self, instance: str, recipient: str, rules: Rules = RULES, user: str = "bob") -> Spent:
        return await self.state.spend(Spend(user, instance, recipient, 0), rules)

    async def whole(self, instance: str, cost: int = 0, rules: Rules = RULES, user: str = "bob") -> Spent:
        return await self.state.spend(Spend(user, instance, "", cost), rules)

    async def used(self, user: str = "bob") -> int:
        return (await self.state.usage([user], INTERVAL))[0].used

    def assertSpent(self, spent: Spent, outcome: Outcome, used: int, wait: float = 0.0, limit: int = LIMIT) -> None:
        self.assertEqual(spent[:3], (outcome, limit, used))
        self.assertAlmostEqual(spent.wait, wait, places=3)

    async def test_without_a_limit_the_book_must_be_asked(self) -> None:
        spent = await self.rcpt("i", "a")
        self.assertEqual(spent.outcome, MISSING)
        self.assertEqual(await self.used(), 0)

    async def test_a_fill_is_used_and_kept_for_its_time(self) -> None:
        token = (await self.rcpt("i", "a")).token
        spent = await self.state.spend(Spend("bob", "i", "a", 0), RULES, Fill(token, LIMIT, 10.5))
        self.assertSpent(spent, ACCEPTED, 1)
        self.advance(10)
        self.assertSpent(await self.rcpt("i", "b"), ACCEPTED, 2)
        self.advance(1)
        self.assertEqual((await self.rcpt("i", "c")).outcome, MISSING)
        self.assertEqual(await self.state.usage(["bob"], INTERVAL), [Usage(None, 2, (await self.usage()).last)])

    async def usage(self, user: str = "bob") -> Usage:
        return (await self.state.usage([user], INTERVAL))[0]

    async def test_a_fill_older_than_a_drop_is_used_but_not_kept(self) -> None:
        token = (await self.rcpt("i", "a")).token
        await self.state.drop_limits(["bob"])
        spent = await self.state.spend(Spend("bob", "i", "a", 0), RULES, Fill(token, 9, 100.0))
        self.assertSpent(spent, ACCEPTED, 1, limit=9)
        again = await self.rcpt("i", "b")
        self.assertEqual(again.outcome, MISSING)
        self.assertNotEqual(again.token, token)
        self.assertIsNone((await self.usage()).limit)

    async def test_a_drop_of_one_user_leaves_the_fill_of_another(self) -> None:
        token = (await self.rcpt("i", "a")).token
        await self.state.drop_limits(["alice", "carol"])
        await self.state.spend(Spend("bob", "i", "a", 0), RULES, Fill(token, LIMIT, 100.0))
        self.assertSpent(await self.rcpt("i", "b"), ACCEPTED, 2)

    async def test_each_drop_gives_a_token_never_given_before(self) -> None:
        tokens = set()
        for _ in range(5):
            tokens.add((await self.rcpt("i", "a")).token)
            await self.state.drop_limits(["bob"])
        self.assertEqual(len(tokens), 5)

    async def test_a_token_that_was_never_given_is_worth_nothing(self) -> None:
        await self.state.drop_limits(["bob"])
        for token in ("", "x", "-1", "1e9", "\u0663", "9" * 40):
            await self.state.spend(Spend("bob", "i", "a", 0), RULES, Fill(token, LIMIT, 100.0))
            self.assertEqual((await self.rcpt("i", "b")).outcome, MISSING, token)

    async def test_a_drop_leaves_what_was_counted(self) -> None:
        await self.limit()
        await self.rcpt("i", "a")
        await self.state.drop_limits(["bob"])
        self.assertEqual((await self.usage())[:2], (None, 1))
        await self.limit()
        self.assertSpent(await self.rcpt("i", "a"), REPEATED, 1)

    async def test_unknown_users_and_users_without_quota_are_remembered_as_such(self) -> None:
        for user, value, outcome in (("x", UNKNOWN_USER, Outcome.UNKNOWN_USER), ("y", NO_QUOTA, Outcome.NO_QUOTA)):
            token = (await self.rcpt("i", "a", user=user)).token
            spent = await self.state.spend(Spend(user, "i", "a", 0), RULES, Fill(token, value, 10.5))
            self.assertEqual(spent, Spent(outcome, 0, 0, 0.0, ""))
            self.assertEqual(await self.rcpt("i", "a", user=user), spent)
            self.assertEqual(await self.usage(user), Usage(value, 0, 0.0))
            self.advance(11)
            self.assertEqual((await self.rcpt("i", "a", user=user)).outcome, MISSING)

    async def test_a_quota_of_n_lets_exactly_n_messages_through(self) -> None:
        await self.limit()
        outcomes = [(await self.rcpt(f"i{number}", "a")).outcome for number in range(LIMIT + 2)]
        self.assertEqual(outcomes, [ACCEPTED] * LIMIT + [EXCEEDED] * 2)
        self.assertEqual(await self.used(), LIMIT)

    async def test_a_quota_of_nothing_lets_nothing_through(self) -> None:
        await self.limit(limit=0)
        self.assertSpent(await self.rcpt("i", "a"), EXCEEDED, 0, limit=0)
        self.assertSpent(await self.whole("i", 1, RULES._replace(margin_count=9)), EXCEEDED, 0, limit=0)

    async def test_each_recipient_counts_once(self) -> None:
        await self.limit()
        self.assertSpent(await self.rcpt("i", "a"), ACCEPTED, 1)
        self.assertSpent(await self.rcpt("i", "b"), ACCEPTED, 2)
        self.assertSpent(await self.rcpt("i", "a"), REPEATED, 2)
        self.assertSpent(await self.rcpt("j", "a"), ACCEPTED, 3)

    async def test_recipients_are_told_apart_exactly(self) -> None:
        names = [*ODD_NAMES, "a", "a b", "b", "A", "ab", "1", "11"]
        await self.limit(limit=100)
        for number, name in enumerate(names, 1):
            self.assertSpent(await self.rcpt("i", name), ACCEPTED, number, limit=100)
        for name in names:
            self.assertSpent(await self.rcpt("i", name), REPEATED, len(names), limit=100)

    async def test_a_whole_message_costs_what_it_says_once(self) -> None:
        await self.limit()
        self.assertSpent(await self.whole("i", 3), ACCEPTED, 3)
        self.assertSpent(await self.whole("i", 3), REPEATED, 3)
        self.assertSpent(await self.whole("i"), REPEATED, 3)

    async def test_a_message_that_does_not_say_costs_one(self) -> None:
        await self.limit()
        self.assertSpent(await self.whole("i"), ACCEPTED, 1)
        self.assertSpent(await self.whole("i"), REPEATED, 1)

    async def test_the_last_stage_that_is_asked_has_the_say(self) -> None:
        await self.limit()
        await self.rcpt("i", "a")
        await self.rcpt("i", "b")
        self.assertSpent(await self.whole("i", 2), REPEATED, 2)
        self.assertSpent(await self.whole("i", 4), ACCEPTED, 4)
        self.assertSpent(await self.whole("i", 1), ACCEPTED, 1)
        self.assertEqual(await self.used(), 1)

    async def test_recipients_are_remembered_when_the_whole_message_was_counted(self) -> None:
        await self.limit()
        await self.rcpt("i", "a")
        await self.whole("i", 3)
        self.assertSpent(await self.rcpt("i", "a"), REPEATED, 3)
        self.assertSpent(await self.rcpt("i", "b"), ACCEPTED, 4)

    async def test_a_whole_message_is_taken_entirely_or_not_at_all(self) -> None:
        await self.limit()
        await self.whole("i", 3)
        self.assertSpent(await self.whole("j", 3), EXCEEDED, 3, INTERVAL)
        self.assertSpent(await self.whole("k", 2), ACCEPTED, 5)

    async def test_a_recipient_too_many_leaves_its_message_as_it_was(self) -> None:
        await self.limit(limit=2)
        await self.rcpt("i", "a")
        await self.rcpt("i", "b")
        self.assertSpent(await self.rcpt("i", "c"), EXCEEDED, 2, INTERVAL, limit=2)
        self.assertSpent(await self.rcpt("i", "a"), REPEATED, 2, limit=2)
        self.assertSpent(await self.rcpt("i", "c"), EXCEEDED, 2, INTERVAL, limit=2)

    async def test_a_message_refused_as_a_whole_gives_back_what_it_had_cost(self) -> None:
        await self.limit()
        await self.rcpt("i", "a")
        self.advance(10)
        await self.rcpt("j", "a")
        self.assertSpent(await self.whole("i", 9), EXCEEDED, 1, INTERVAL)
        self.assertEqual(await self.used(), 1)
        self.assertSpent(await self.rcpt("i", "a"), ACCEPTED, 2)

    async def test_with_nothing_counted_there_is_nothing_to_wait_for(self) -> None:
        await self.limit()
        self.assertSpent(await self.whole("i", 9), EXCEEDED, 0)
        await self.rcpt("i", "a")
        self.assertSpent(await self.whole("i", 9), EXCEEDED, 0)

    async def test_the_wait_is_until_the_oldest_message_leaves(self) -> None:
        await self.limit(limit=2)
        await self.rcpt("i", "a")
        self.advance(300)
        await self.rcpt("j", "a")
        self.advance(100)
        self.assertSpent(await self.rcpt("k", "a"), EXCEEDED, 2, 600, limit=2)
        self.assertSpent(await self.whole("k", 1), EXCEEDED, 2, 600, limit=2)

    async def test_a_message_leaves_the_window_exactly_when_it_is_an_interval_old(self) -> None:
        await self.limit()
        await self.whole("i", 2)
        self.advance(INTERVAL - 0.25)
        await self.whole("j", 3)
        self.assertSpent(await self.rcpt("k", "a"), EXCEEDED, 5, 0.25)
        self.advance(0.25)
        self.assertEqual(await self.used(), 3)
        self.assertSpent(await self.rcpt("k", "a"), ACCEPTED, 4)
        self.advance(INTERVAL - 0.5)
        self.assertEqual(await self.used(), 4)
        self.advance(0.25)
        self.assertEqual(await self.used(), 1)
        self.advance(0.25)
        self.assertEqual(await self.used(), 0)

    async def test_what_is_added_later_leaves_with_its_message(self) -> None:
        await self.limit()
        await self.rcpt("i", "a")
        self.advance(900)
        await self.rcpt("i", "b")
        self.advance(100)
        self.assertEqual(await self.used(), 0)
        self.assertSpent(await self.rcpt("i", "a"), ACCEPTED, 1)

    async def test_a_message_without_instance_is_one_of_its_own_each_time(self) -> None:
        await self.limit()
        for number in range(LIMIT):
            self.assertSpent(await self.rcpt("", "a"), ACCEPTED, number + 1)
        self.assertSpent(await self.whole("", 1), EXCEEDED, LIMIT, INTERVAL)

    async def test_a_message_that_begins_below_the_limit_may_run_into_the_margin(self) -> None:
        rules = RULES._replace(margin_count=2)
        await self.limit()
        await self.whole("i", 4)
        self.assertSpent(await self.whole("j", 4, rules), EXCEEDED, 4, INTERVAL)
        self.assertSpent(await self.whole("j", 3, rules), ACCEPTED, 7)
        self.assertSpent(await self.whole("k", 1, rules), EXCEEDED, 7, INTERVAL)

    async def test_a_message_at_the_limit_that_has_begun_may_go_on_into_the_margin(self) -> None:
        rules = RULES._replace(margin_count=1)
        await self.limit()
        for number in range(LIMIT + 1):
            self.assertSpent(await self.rcpt("i", f"r{number}", rules), ACCEPTED, number + 1)
        self.assertSpent(await self.rcpt("i", "more", rules), EXCEEDED, LIMIT + 1, INTERVAL)

    async def test_a_margin_that_is_a_part_of_the_limit_is_rounded_down(self) -> None:
        rules = RULES._replace(margin_ratio=0.35)
        await self.limit()
        self.assertSpent(await self.whole("i", 7, rules), EXCEEDED, 0)
        self.assertSpent(await self.whole("i", 6, rules), ACCEPTED, 6)

    async def test_both_margins_add_up(self) -> None:
        rules = RULES._replace(margin_ratio=0.4, margin_count=1)
        await self.limit()
        self.assertSpent(await self.whole("i", 9, rules), EXCEEDED, 0)
        self.assertSpent(await self.whole("i", 8, rules), ACCEPTED, 8)

    async def test_messages_of_a_user_must_be_min_delta_apart(self) -> None:
        rules = RULES._replace(min_delta=10.0)
        await self.limit()
        self.assertSpent(await self.rcpt("i", "a", rules), ACCEPTED, 1)
        self.advance(4)
        self.assertSpent(await self.rcpt("j", "a", rules), TOO_SOON, 1, 6)
        self.assertSpent(await self.whole("", 1, rules), TOO_SOON, 1, 6)
        self.assertSpent(await self.rcpt("i", "b", rules), ACCEPTED, 2)
        self.assertSpent(await self.rcpt("i", "a", rules), REPEATED, 2)
        self.advance(6)
        self.assertSpent(await self.rcpt("j", "a", rules), ACCEPTED, 3)

    async def test_a_refused_message_does_not_start_min_delta(self) -> None:
        rules = RULES._replace(min_delta=10.0)
        await self.limit()
        await self.whole("i", 9, rules)
        self.assertSpent(await self.whole("j", 5, rules), ACCEPTED, 5)

    async def test_a_message_given_back_still_is_the_last_one(self) -> None:
        rules = RULES._replace(min_delta=10.0)
        await self.limit()
        await self.rcpt("i", "a", rules)
        await self.whole("i", 9, rules)
        self.assertSpent(await self.rcpt("j", "a", rules), TOO_SOON, 0, 10)

    async def test_what_was_counted_while_the_clock_was_ahead_counts_from_now(self) -> None:
        await self.limit()
        await self.rcpt("before", "a")
        self.advance(1e6)
        await self.limit()
        for instance in ("i", "j"):
            await self.whole(instance, 2)
        self.advance(-1e6)
        await self.limit()
        self.assertLessEqual((await self.usage()).last, (await self.usage()).last)
        for ask in (self.state.peek_spend, self.state.spend, self.state.peek_spend):
            self.assertSpent(await ask(Spend("bob", "k", "", 2), RULES), EXCEEDED, 4, INTERVAL)
        self.advance(INTERVAL - 1)
        self.assertSpent(await self.rcpt("i", "a"), ACCEPTED, 5)
        self.assertSpent(await self.whole("j", 1), ACCEPTED, 4)
        self.advance(1)
        self.assertSpent(await self.rcpt("k", "a"), ACCEPTED, 1)

    async def test_a_limit_that_was_copied_while_the_clock_was_ahead_is_not_known_when_it_is_set_back(self) -> None:
        self.advance(1e6)
        await self.limit()
        await self.whole("i", 1)
        self.advance(-1e6)
        self.assertIsNone((await self.usage()).limit)
        for ask in (self.state.peek_spend, self.state.spend):
            self.assertEqual((await ask(Spend("bob", "j", "", 1), RULES)).outcome, MISSING)
        await self.limit()
        self.assertSpent(await self.whole("j", 1), ACCEPTED, 2)

    async def test_peek_answers_as_spend_would_and_changes_nothing(self) -> None:
        peek = self.state.peek_spend
        missing = await peek(Spend("bob", "i", "a", 0), RULES)
        self.assertEqual(missing.outcome, MISSING)
        fill = Fill(missing.token, LIMIT, 100.0)
        self.assertSpent(await peek(Spend("bob", "i", "a", 0), RULES, fill), ACCEPTED, 1)
        self.assertEqual((await peek(Spend("bob", "i", "a", 0), RULES)).outcome, MISSING)
        await self.limit()
        await self.whole("i", 3)
        for wanted in (
            ("i", "a", 0),
            ("i", "", 3),
            ("i", "", 1),
            ("i", "", 9),
            ("j", "", 3),
            ("j", "", 2),
            ("", "", 0),
        ):
            seen = [await peek(Spend("bob", *wanted), RULES) for _ in range(2)]
            self.assertEqual(seen[0], seen[1])
            self.assertEqual(await self.used(), 3)
        self.assertSpent(await peek(Spend("bob", "i", "", 9), RULES), EXCEEDED, 0)
        self.assertSpent(await peek(Spend("bob", "i", "", 1), RULES), ACCEPTED, 1)
        self.advance(INTERVAL)
        self.assertSpent(await peek(Spend("bob", "i", "", 5), RULES), ACCEPTED, 5)

    async def test_peek_sees_what_has_left_the_window(self) -> None:
        await self.limit()
        await self.whole("i", 3)
        self.advance(500)
        await self.whole("j", 2)
        self.advance(500)
        self.assertSpent(await self.state.peek_spend(Spend("bob", "k", "", 4), RULES), EXCEEDED, 2, 500)
        self.assertSpent(await self.state.peek_spend(Spend("bob", "i", "", 3), RULES), ACCEPTED, 5)
        self.assertSpent(await self.whole("i", 3), ACCEPTED, 5)

    async def test_usage_tells_of_each_user_in_order(self) -> None:
        await self.limit("bob")
        await self.limit("alice", 7)
        await self.rcpt("i", "a", user="alice")
        bob, nobody, alice = await self.state.usage(["bob", "nobody", "alice"], INTERVAL)
        self.assertEqual(bob, Usage(LIMIT, 0, 0.0))
        self.assertEqual(nobody, Usage(None, 0, 0.0))
        self.assertEqual(alice[:2], (7, 1))
        self.assertGreater(alice.last, 0)
        self.assertEqual(await self.state.usage([], INTERVAL), [])

    async def test_a_reset_forgets_what_was_counted_and_says_how_much(self) -> None:
        await self.limit()
        await self.whole("i", 3)
        await self.rcpt("j", "a", RULES._replace(min_delta=0.0))
        self.assertEqual(await self.state.reset_usage("bob", INTERVAL), 4)
        self.assertEqual(await self.usage(), Usage(LIMIT, 0, 0.0))
        self.assertEqual(await self.state.reset_usage("bob", INTERVAL), 0)
        self.assertEqual(await self.state.reset_usage("nobody", INTERVAL), 0)
        self.assertSpent(await self.rcpt("j", "a", RULES._replace(min_delta=10.0)), ACCEPTED, 1)

    async def test_a_reset_counts_only_what_is_in_the_window(self) -> None:
        await self.limit()
        await self.whole("i", 3)
        self.advance(600)
        await self.whole("j", 2)
        self.advance(400)
        self.assertEqual(await self.state.reset_usage("bob", INTERVAL), 2)

    async def test_users_with_odd_names_are_told_apart(self) -> None:
        for number, user in enumerate(ODD_NAMES):
            await self.limit(user, 100 + number)
            self.assertSpent(await self.whole("i", number + 1, user=user), ACCEPTED, number + 1, limit=100 + number)
        for number, user in enumerate(ODD_NAMES):
            self.assertEqual((await self.usage(user))[:2], (100 + number, number + 1))

    async def test_instances_with_odd_names_are_told_apart(self) -> None:
        await self.limit(limit=1000)
        for number, instance in enumerate(ODD_NAMES, 1):
            self.assertSpent(await self.whole(instance, 1), ACCEPTED, number, limit=1000)
        for instance in ODD_NAMES:
            self.assertSpent(await self.whole(instance, 1), REPEATED, len(ODD_NAMES), limit=1000)

    async def test_a_cost_beyond_measure_is_refused_like_any_other(self) -> None:
        await self.limit()
        self.assertSpent(await self.whole("i", 10**30), EXCEEDED, 0)
        self.assertSpent(await self.whole("i", -3), ACCEPTED, 1)
