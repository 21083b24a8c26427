"""What every LiveState promises about greylisting."""

from __future__ import annotations

from chapps_tw.interfaces.greylist import Fill, GreylistAttempt, GreylistResult, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import ValueKey
from tests.contract.state_case import StateCase
from tests.support.odd_names import ODD_NAMES

GREYLIST_RULES = GreylistRules(deferral=60.0, retry_window=600.0, pass_ttl=600.0, tally_ttl=600.0, threshold=3)
MISSING = Outcome.MISSING
NOT_GREYLISTED, FIRST, EARLY, PASSED, KNOWN_CLIENT = (
    Outcome.NOT_GREYLISTED,
    Outcome.FIRST,
    Outcome.EARLY,
    Outcome.PASSED,
    Outcome.KNOWN_CLIENT,
)


class GreylistContract(StateCase):
    """Greylisting."""

    async def flag(self, on: bool = True, domain: str = "our.example") -> None:
        """Have the state keep a domain's flag, without meeting anything that matters."""
        token = (await self.state.peek_greylist(self.mail(domain=domain), GREYLIST_RULES)).token
        await self.state.check_greylist(
            self.mail("flag setter", domain=domain), GREYLIST_RULES, Fill(token, int(on), 86400.0)
        )

    def mail(
        self,
        client: str = "192.0.2.0/24",
        sender: str = "s@example.net",
        recipient: str = "r@our.example",
        domain: str = "our.example",
        instance: str = "i",
        forced: bool = False,
        spf_domain: str = "",
    ) -> GreylistAttempt:
        return GreylistAttempt(client, sender, recipient, domain, instance, forced, spf_domain)

    async def check_greylist(
        self, attempt: GreylistAttempt | None = None, rules: GreylistRules = GREYLIST_RULES
    ) -> GreylistResult:
        return await self.state.check_greylist(attempt or self.mail(), rules)

    def assertMet(self, met: GreylistResult, outcome: Outcome, wait: float = 0.0, tally: int = 0) -> None:
        self.assertEqual((met.outcome, met.tally), (outcome, tally))
        self.assertAlmostEqual(met.wait, wait, places=3)

    async def known(self, count: int = GREYLIST_RULES.threshold) -> None:
        """Have a client pass some times."""
        await self.flag()
        await self.check_greylist(self.mail(instance="deferred"))
        self.advance(60)
        for number in range(count):
            self.assertMet(await self.check_greylist(self.mail(instance=f"i{number}")), PASSED, tally=number + 1)

    async def test_without_a_flag_the_book_must_be_asked(self) -> None:
        self.assertEqual((await self.check_greylist()).outcome, MISSING)
        self.assertEqual(await self.state.last_attempt(*self.mail()[:3]), 0.0)

    async def test_mail_to_a_domain_that_is_not_greylisted_is_let_through_and_not_remembered(self) -> None:
        await self.flag(False)
        self.assertMet(await self.check_greylist(), NOT_GREYLISTED)
        self.assertEqual(await self.state.last_attempt(*self.mail()[:3]), 0.0)
        self.assertEqual(await self.state.tally("192.0.2.0/24"), [])

    async def test_a_flag_older_than_an_invalidation_is_used_but_not_cached(self) -> None:
        token = (await self.check_greylist()).token
        await self.state.drop_flags(["our.example"])
        self.assertMet(await self.state.check_greylist(self.mail(), GREYLIST_RULES, Fill(token, 1, 100.0)), FIRST, 60)
        self.assertEqual((await self.check_greylist()).outcome, MISSING)

    async def test_a_drop_of_one_flag_leaves_the_others(self) -> None:
        await self.flag(domain="a.example")
        await self.flag(domain="b.example")
        await self.state.drop_flags(["a.example"])
        self.assertEqual((await self.check_greylist(self.mail(domain="a.example"))).outcome, MISSING)
        self.assertEqual((await self.check_greylist(self.mail(domain="b.example"))).outcome, FIRST)

    async def test_a_flag_is_kept_for_its_time(self) -> None:
        token = (await self.check_greylist()).token
        await self.state.check_greylist(self.mail(), GREYLIST_RULES, Fill(token, 0, 10.5))
        self.advance(10)
        self.assertMet(await self.check_greylist(), NOT_GREYLISTED)
        self.advance(1)
        self.assertEqual((await self.check_greylist()).outcome, MISSING)

    async def test_flags_are_no_values_that_somebody_can_read(self) -> None:
        await self.flag()
        keys = [ValueKey(space, "our.example") for space in ("sda", "spf", "greylist", "flags", "grl", "")]
        keys += [ValueKey(each.space, "", each.owner) for each in keys]
        self.assertEqual({each.value for each in await self.state.values(keys)}, {None})

    async def test_the_first_time_is_deferred_and_the_second_passes_after_the_wait(self) -> None:
        await self.flag()
        self.assertMet(await self.check_greylist(), FIRST, 60)
        self.advance(59.75)
        self.assertMet(await self.check_greylist(), EARLY, 0.25)
        self.advance(0.25)
        self.assertMet(await self.check_greylist(), PASSED, tally=1)

    async def test_coming_early_does_not_start_the_wait_again(self) -> None:
        await self.flag()
        self.assertMet(await self.check_greylist(), FIRST, 60)
        for left in (40, 20):
            self.advance(20)
            self.assertMet(await self.check_greylist(), EARLY, left)
        self.advance(20)
        self.assertMet(await self.check_greylist(), PASSED, tally=1)

    async def test_nobody_waits_for_a_time_that_was_told_by_a_clock_that_was_ahead(self) -> None:
        await self.flag()
        self.advance(80_000)
        await self.check_greylist()
        self.advance(-80_000)
        for ask in (self.state.peek_greylist, self.state.check_greylist):
            self.assertMet(await ask(self.mail(), GREYLIST_RULES), FIRST, 60)
        self.advance(60)
        self.assertMet(await self.check_greylist(), PASSED, tally=1)

    async def test_a_flag_that_was_copied_while_the_clock_was_ahead_is_not_known_when_it_is_set_back(self) -> None:
        self.advance(1e6)
        await self.flag()
        await self.check_greylist()
        self.advance(-1e6)
        for ask in (self.state.peek_greylist, self.state.check_greylist):
            self.assertEqual((await ask(self.mail(), GREYLIST_RULES)).outcome, MISSING)

    async def test_a_tuple_that_was_met_while_the_clock_was_far_ahead_is_new_when_it_is_set_back(self) -> None:
        await self.flag()
        await self.check_greylist()
        self.advance(60)
        self.assertEqual((await self.check_greylist()).outcome, PASSED)
        self.advance(1e9)
        await self.flag()
        await self.check_greylist()
        self.advance(60)
        self.assertEqual((await self.check_greylist()).outcome, PASSED)
        self.advance(-1e9)
        await self.flag()
        self.assertMet(await self.check_greylist(), FIRST, 60, tally=1)

    async def test_a_tally_of_a_clock_that_was_ahead_ends_a_lifetime_from_now(self) -> None:
        rules = GREYLIST_RULES._replace(deferral=0.0, threshold=2)
        await self.flag()
        self.advance(80_000)
        for instance in ("i", "j"):
            await self.check_greylist(self.mail(instance=instance), rules)
        self.advance(-80_000)
        self.assertMet(await self.check_greylist(self.mail(instance="k"), rules), KNOWN_CLIENT, tally=2)
        self.assertMet(await self.check_greylist(self.mail(instance="l"), rules), KNOWN_CLIENT, tally=2)
        self.assertEqual({instance for instance, _ in await self.state.tally("192.0.2.0/24")}, {"k", "l"})
        self.advance(rules.tally_ttl + 1)
        self.assertMet(await self.check_greylist(self.mail(instance="m"), rules), PASSED, tally=1)

    async def test_a_clock_that_is_set_back_a_little_makes_nobody_wait_who_has_passed(self) -> None:
        await self.flag()
        await self.check_greylist()
        self.advance(100)
        self.assertMet(await self.check_greylist(), PASSED, tally=1)
        self.advance(-15)
        self.assertMet(await self.check_greylist(self.mail(instance="again")), PASSED, tally=2)

    async def test_what_has_passed_passes_as_long_as_it_comes_within_a_lifetime(self) -> None:
        await self.flag()
        await self.check_greylist()
        for _ in range(4):
            self.advance(600)
            self.assertEqual((await self.check_greylist()).outcome, PASSED)
        self.advance(600.25)
        self.assertMet(await self.check_greylist(), FIRST, 60)

    async def test_coming_early_prolongs_the_lifetime(self) -> None:
        await self.flag()
        rules = GREYLIST_RULES._replace(deferral=500.0)
        await self.check_greylist(rules=rules)
        self.advance(400)
        self.assertMet(await self.check_greylist(rules=rules), EARLY, 100)
        self.advance(600)
        self.assertMet(await self.check_greylist(rules=rules), PASSED, tally=1)

    async def test_each_part_of_the_tuple_counts(self) -> None:
        await self.flag()
        await self.check_greylist()
        self.advance(60)
        for other in (self.mail(client="c"), self.mail(sender="s"), self.mail(recipient="r"), self.mail(sender="")):
            self.assertMet(await self.check_greylist(other), FIRST, 60)
        self.assertMet(await self.check_greylist(), PASSED, tally=1)

    async def test_parts_of_the_tuple_are_not_run_together(self) -> None:
        await self.flag()
        await self.check_greylist(self.mail("c", "a", "bc"))
        self.advance(60)
        for sender, recipient in (("ab", "c"), ("a\0b", "c"), ("", "abc")):
            self.assertMet(await self.check_greylist(self.mail("c", sender, recipient)), FIRST, 60)

    async def test_tuples_with_odd_names_are_told_apart(self) -> None:
        await self.flag()
        for name in ODD_NAMES:
            self.assertMet(await self.check_greylist(self.mail(name, name, name, instance=name)), FIRST, 60)
        self.advance(60)
        for name in ODD_NAMES:
            self.assertMet(await self.check_greylist(self.mail(name, name, name, instance=name)), PASSED, tally=1)

    async def test_with_no_deferral_everything_passes_at_once(self) -> None:
        await self.flag()
        self.assertMet(await self.check_greylist(rules=GREYLIST_RULES._replace(deferral=0.0)), PASSED, tally=1)

    async def test_forced_mail_is_greylisted_whatever_the_flag_says(self) -> None:
        forced = self.mail(forced=True)
        self.assertMet(await self.check_greylist(forced), FIRST, 60)
        await self.flag(False)
        self.advance(60)
        self.assertMet(await self.check_greylist(forced), PASSED, tally=1)
        self.assertMet(await self.check_greylist(), NOT_GREYLISTED)

    async def test_a_client_that_passed_often_enough_is_let_through_at_once(self) -> None:
        await self.known()
        self.assertMet(await self.check_greylist(self.mail(sender="new", instance="new")), KNOWN_CLIENT, tally=3)
        self.assertEqual(await self.state.last_attempt("192.0.2.0/24", "new", "r@our.example"), 0.0)

    async def test_the_tally_keeps_the_newest_messages(self) -> None:
        await self.known()
        self.advance(1)
        await self.check_greylist(self.mail(instance="new"))
        tally = await self.state.tally("192.0.2.0/24")
        self.assertEqual([instance for instance, _ in tally], ["i1", "i2", "new"])
        self.assertAlmostEqual(tally[2][1] - tally[0][1], 1, places=3)

    async def test_a_message_counts_once_for_its_client(self) -> None:
        await self.known(2)
        self.assertMet(await self.check_greylist(self.mail(instance="i1")), PASSED, tally=2)
        self.assertEqual(len(await self.state.tally("192.0.2.0/24")), 2)

    async def test_deferred_mail_and_mail_without_instance_do_not_count(self) -> None:
        await self.flag()
        await self.check_greylist()
        self.advance(60)
        self.assertMet(await self.check_greylist(self.mail(instance="")), PASSED, tally=0)
        self.assertEqual(await self.state.tally("192.0.2.0/24"), [])

    async def test_a_tally_ends_a_lifetime_after_its_last_message(self) -> None:
        await self.known(2)
        self.advance(500)
        self.assertMet(await self.check_greylist(self.mail(instance="late")), PASSED, tally=3)
        self.advance(500)
        self.assertEqual(len(await self.state.tally("192.0.2.0/24")), 3)
        self.advance(101)
        self.assertEqual(await self.state.tally("192.0.2.0/24"), [])
        self.assertMet(await self.check_greylist(self.mail(sender="new")), FIRST, 60)
        self.advance(60)
        self.assertMet(await self.check_greylist(self.mail(sender="new")), PASSED, tally=1)

    async def test_with_no_threshold_nobody_is_known(self) -> None:
        await self.flag()
        rules = GREYLIST_RULES._replace(threshold=0)
        await self.check_greylist(rules=rules)
        self.advance(60)
        for number in range(5):
            self.assertMet(await self.check_greylist(self.mail(instance=f"i{number}"), rules), PASSED)
        self.assertEqual(await self.state.tally("192.0.2.0/24"), [])

    async def test_a_tally_can_be_cleared(self) -> None:
        await self.known()
        await self.state.clear_tally("192.0.2.0/24")
        self.assertEqual(await self.state.tally("192.0.2.0/24"), [])
        self.assertMet(await self.check_greylist(self.mail(sender="new")), FIRST, 60)
        await self.state.clear_tally("nobody")

    async def test_the_last_meeting_is_remembered(self) -> None:
        await self.flag()
        await self.check_greylist()
        before = await self.state.last_attempt(*self.mail()[:3])
        self.advance(20)
        await self.check_greylist()
        self.assertAlmostEqual(await self.state.last_attempt(*self.mail()[:3]) - before, 20, places=3)

    async def test_a_tuple_that_is_let_pass_passes_at_its_next_attempt(self) -> None:
        await self.flag()
        self.assertMet(await self.check_greylist(), FIRST, 60)
        await self.state.pass_greylist(*self.mail()[:3], GREYLIST_RULES)
        self.assertEqual(await self.state.tally("192.0.2.0/24"), [])
        self.assertMet(await self.check_greylist(), PASSED, tally=1)
        self.assertMet(await self.check_greylist(self.mail(sender="other")), FIRST, 60, tally=1)

    async def test_a_tuple_may_be_let_pass_before_its_first_attempt(self) -> None:
        await self.flag()
        for _ in range(2):
            await self.state.pass_greylist(*self.mail()[:3], GREYLIST_RULES)
        self.assertGreater(await self.state.last_attempt(*self.mail()[:3]), 0.0)
        self.assertMet(
            await self.state.peek_greylist(self.mail(spf_domain="example.net"), GREYLIST_RULES), PASSED, tally=1
        )

    async def test_a_tuple_that_was_let_pass_lives_as_long_as_one_that_has_passed(self) -> None:
        await self.flag()
        rules = GREYLIST_RULES._replace(retry_window=100.0)
        await self.state.pass_greylist(*self.mail()[:3], rules)
        self.advance(rules.pass_ttl - 1)
        self.assertEqual((await self.state.peek_greylist(self.mail(), rules)).outcome, PASSED)
        self.advance(2)
        self.assertEqual((await self.state.peek_greylist(self.mail(), rules)).outcome, FIRST)

    async def test_peek_answers_as_meet_would_and_changes_nothing(self) -> None:
        peek = self.state.peek_greylist
        token = (await peek(self.mail(), GREYLIST_RULES)).token
        self.assertMet(await peek(self.mail(), GREYLIST_RULES, Fill(token, 1, 100.0)), FIRST, 60)
        self.assertEqual((await peek(self.mail(), GREYLIST_RULES)).outcome, MISSING)
        await self.flag()
        for _ in range(2):
            self.assertMet(await peek(self.mail(), GREYLIST_RULES), FIRST, 60)
        self.assertEqual(await self.state.last_attempt(*self.mail()[:3]), 0.0)
        await self.check_greylist()
        self.advance(20)
        self.assertMet(await peek(self.mail(), GREYLIST_RULES), EARLY, 40)
        self.advance(40)
        for _ in range(2):
            self.assertMet(await peek(self.mail(), GREYLIST_RULES), PASSED, tally=1)
        self.assertEqual(await self.state.tally("192.0.2.0/24"), [])

    async def test_what_was_deferred_must_come_back_within_the_retry_window(self) -> None:
        await self.flag()
        rules = GREYLIST_RULES._replace(retry_window=200.0)
        for pause, outcome, wait in ((0, FIRST, 60), (200.25, FIRST, 60), (30, EARLY, 30), (200, PASSED, 0)):
            self.advance(pause)
            self.assertMet(await self.check_greylist(rules=rules), outcome, wait, tally=int(outcome is PASSED))

    async def test_what_has_passed_passes_for_a_lifetime_of_its_own(self) -> None:
        await self.flag()
        rules = GREYLIST_RULES._replace(retry_window=100.0)
        await self.check_greylist(rules=rules)
        for pause in (100, 600, 600):
            self.advance(pause)
            self.assertEqual((await self.check_greylist(rules=rules)).outcome, PASSED)
        self.advance(600.25)
        self.assertMet(await self.check_greylist(rules=rules), FIRST, 60)

    async def test_a_tally_lasts_for_a_lifetime_of_its_own(self) -> None:
        """As that of a newsletter with a sender address of its own each time does."""
        await self.flag()
        rules = GREYLIST_RULES._replace(retry_window=100.0, pass_ttl=100.0, tally_ttl=5000.0)
        for number in range(3):
            new = self.mail(sender=f"bounce-{number}@example.net", instance=f"i{number}")
            self.assertMet(await self.check_greylist(new, rules), FIRST, 60, tally=number)
            self.advance(60)
            self.assertMet(await self.check_greylist(new, rules), PASSED, tally=number + 1)
            self.advance(2000)
        new = self.mail(sender="bounce-3@example.net", instance="i3")
        self.assertMet(await self.check_greylist(new, rules), KNOWN_CLIENT, tally=3)
        self.advance(5000)
        self.assertEqual(await self.state.tally("192.0.2.0/24"), [])

    async def test_what_was_met_under_the_network_or_under_the_domain_counts_for_both(self) -> None:
        await self.flag()
        by_network, by_both = self.mail(), self.mail(spf_domain="example.net")
        elsewhere = self.mail("198.51.100.0/24", spf_domain="example.net")
        for first, second in ((by_network, by_both), (by_both, by_network), (by_both, elsewhere)):
            first, second = (each._replace(sender=f"{first.spf_domain}{second}") for each in (first, second))
            self.assertMet(await self.check_greylist(first), FIRST, 60)
            self.advance(20)
            for ask in (self.state.peek_greylist, self.state.check_greylist):
                self.assertMet(await ask(second, GREYLIST_RULES), EARLY, 40)
            self.advance(40)
            self.assertEqual((await self.state.peek_greylist(second, GREYLIST_RULES)).outcome, PASSED)

    async def test_the_elder_of_two_names_says_how_long_to_wait(self) -> None:
        await self.flag()
        await self.check_greylist(self.mail())
        self.advance(30)
        await self.check_greylist(self.mail("198.51.100.0/24", spf_domain="example.net"))
        self.advance(30)
        self.assertMet(await self.check_greylist(self.mail(spf_domain="example.net")), PASSED, tally=1)
        # What one of them has passed, the other has.
        self.advance(1)
        rules = GREYLIST_RULES._replace(retry_window=1.0)
        self.advance(500)
        for mail in (self.mail(), self.mail("203.0.113.0/24", spf_domain="example.net")):
            self.assertEqual((await self.state.peek_greylist(mail, rules)).outcome, PASSED)

    async def test_both_names_are_found_where_somebody_looks(self) -> None:
        await self.flag()
        await self.check_greylist(self.mail(spf_domain="example.net"))
        by_network = await self.state.last_attempt(*self.mail()[:3])
        self.assertGreater(by_network, 0.0)
        self.assertEqual(await self.state.last_attempt("example.net", *self.mail()[1:3]), by_network)

    async def test_what_passes_counts_for_the_domain_and_one_known_by_network_is_known(self) -> None:
        await self.flag()
        rules = GREYLIST_RULES._replace(deferral=0.0)
        self.assertMet(await self.check_greylist(self.mail(spf_domain="example.net"), rules), PASSED, tally=1)
        self.assertEqual(len(await self.state.tally("example.net")), 1)
        self.assertEqual(await self.state.tally("192.0.2.0/24"), [])
        for number in range(3):
            await self.check_greylist(self.mail(instance=f"n{number}"), rules)
        new = self.mail(sender="new", instance="new", spf_domain="other.example")
        for ask in (self.state.peek_greylist, self.state.check_greylist):
            self.assertMet(await ask(new, GREYLIST_RULES), KNOWN_CLIENT, tally=3)
        self.assertEqual(await self.state.tally("other.example"), [])
        self.assertEqual(len(await self.state.tally("192.0.2.0/24")), 3)
