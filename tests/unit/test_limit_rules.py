"""Which limits apply to a request, and what they count."""

from __future__ import annotations

import unittest
from dataclasses import replace

from chapps_tw.config.limits import RateLimit, parse_match, parse_window
from chapps_tw.config.settings import Chapps, GreylistingPolicy, RateLimitPolicy, Settings
from chapps_tw.interfaces.state import Account, Charge, Unit
from chapps_tw.mail.addresses import MAX_EMAIL
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.limit_rules import Rule, predicates_of, rules_of

DEFAULTS = Settings()


def limit(per: str = "client", **options: object) -> RateLimit:
    made = RateLimit(name="flood", per=per, unit=Unit.MESSAGES, amount=3, window=parse_window("10m"))
    return replace(made, **options)  # type: ignore[arg-type]


def request(settings: Settings = DEFAULTS, /, **values: str) -> OutboundPPR:
    return OutboundPPR({"protocol_state": "RCPT", "instance": "1a.2", **values}, cfg=settings)


def counted(per: str, settings: Settings = DEFAULTS, /, **values: str) -> str | None:
    """Return what a limit counts of a request; ``None`` if it does not apply."""
    charge = Rule(limit(per), settings).charge(request(settings, **values), "RCPT")
    if charge is None:
        return None
    name, _, what = charge.account.name.partition(":")
    assert name == "flood"
    return what


def matches(match: str, **values: str) -> bool:
    return all(holds(request(**values)) for holds in predicates_of(parse_match(match)))


class ChargeTests(unittest.TestCase):
    def test_a_charge_has_the_figures_of_the_limit_and_an_account_of_its_name_and_unit(self) -> None:
        found = Rule(limit(), DEFAULTS).charge(request(client_address="192.0.2.7"), "RCPT")
        self.assertEqual(found, Charge(Account("limit.messages", "flood:192.0.2.7"), Unit.MESSAGES, 1, 3, 600.0))

    def test_a_limit_whose_unit_is_unknown_at_a_stage_does_not_apply(self) -> None:
        rule = Rule(limit(unit=Unit.BYTES), DEFAULTS)
        asked = request(client_address="192.0.2.7", size="1000", recipient_count="2")
        self.assertIsNone(rule.charge(asked, "RCPT"))
        self.assertIsNone(rule.charge(asked, "DATA"))
        found = rule.charge(asked, "END-OF-MESSAGE")
        self.assertEqual(found and found.amount, 2000)

    def test_the_policy_may_name_some_of_the_limits(self) -> None:
        limits = tuple(replace(limit(), name=name) for name in "abc")
        self.assertEqual([rule.limit.name for rule in rules_of(Settings(limits=limits))], ["a", "b", "c"])
        some = Settings(limits=limits, rlp=replace(RateLimitPolicy(), limits=("c", "a")))
        self.assertEqual([rule.limit.name for rule in rules_of(some)], ["a", "c"])

    def test_only_what_applies_to_every_request_about_a_message_is_settled_by_a_later_one(self) -> None:
        self.assertTrue(Rule(limit(match=parse_match("sasl_username:empty")), DEFAULTS).settles)
        self.assertFalse(Rule(limit("recipient"), DEFAULTS).settles)
        self.assertFalse(Rule(limit("recipient_domain"), DEFAULTS).settles)
        for match in ("recipient:@example.org", "protocol_state:RCPT", "size:0"):
            self.assertFalse(Rule(limit(match=parse_match(match)), DEFAULTS).settles, match)


class CountedTests(unittest.TestCase):
    def test_users_are_counted_by_their_normal_name(self) -> None:
        self.assertEqual(counted("user", sasl_username="Alice@Example.COM"), "alice@example.com")
        exact = Settings(chapps=replace(Chapps(), fold_case=False))
        self.assertEqual(counted("user", exact, sasl_username="Alice"), "Alice")

    def test_senders_and_recipients_are_counted_by_their_normal_address(self) -> None:
        self.assertEqual(counted("sender", sender="Bob@Bücher.example"), "bob@xn--bcher-kva.example")
        self.assertEqual(counted("recipient", recipient="Bob@Example.org"), "bob@example.org")

    def test_domains_are_counted_with_all_their_addresses(self) -> None:
        self.assertEqual(counted("sender_domain", sender="a@b@Example.ORG."), "example.org")
        self.assertEqual(counted("recipient_domain", recipient="x@example.org"), "example.org")

    def test_all_spellings_of_a_client_address_are_one_client(self) -> None:
        self.assertEqual(counted("client", client_address="::ffff:192.0.2.7"), "192.0.2.7")
        self.assertEqual(counted("client", client_address="2001:DB8:0::1"), "2001:db8::1")

    def test_a_client_whose_address_postfix_does_not_know_is_counted_too(self) -> None:
        self.assertEqual(counted("client", client_address="unknown"), "unknown")

    def test_networks_are_those_of_greylisting(self) -> None:
        self.assertEqual(counted("client_network", client_address="192.0.2.7"), "192.0.2.0/24")
        self.assertEqual(counted("client_network", client_address="2001:db8::1"), "2001:db8::/64")
        wide = Settings(grl=replace(GreylistingPolicy(), ipv4_prefix=16))
        self.assertEqual(counted("client_network", wide, client_address="192.0.2.7"), "192.0.0.0/16")

    def test_helo_names_are_counted_without_case_and_final_dot(self) -> None:
        self.assertEqual(counted("helo", helo_name="MX.Example.org."), "mx.example.org")

    def test_everybody_is_one(self) -> None:
        self.assertEqual(counted("everybody"), "everybody")

    def test_a_request_without_what_is_counted_is_not_limited(self) -> None:
        for per in ("user", "sender", "sender_domain", "client", "client_network", "helo", "recipient"):
            self.assertIsNone(counted(per), per)
        self.assertIsNone(counted("sender_domain", sender="postmaster"))

    def test_accounts_have_names_of_bounded_length(self) -> None:
        self.assertEqual(len(counted("sender", sender="x" * 5000 + "@example.org") or ""), MAX_EMAIL)


class MatchTests(unittest.TestCase):
    def test_without_conditions_every_request_matches(self) -> None:
        self.assertTrue(matches(""))

    def test_a_value_is_compared_in_normal_form(self) -> None:
        self.assertTrue(matches("sender:bob@example.org", sender="Bob@EXAMPLE.org"))
        self.assertFalse(matches("sender:bob@example.org", sender="bob@example.org.invalid"))
        self.assertTrue(matches("protocol_state:RCPT"))
        self.assertFalse(matches("protocol_state:DATA"))

    def test_empty_matches_a_missing_or_an_empty_attribute(self) -> None:
        for match, expected in (("sasl_username:empty", True), ("sasl_username:!empty", False)):
            self.assertIs(matches(match), expected)
            self.assertIs(matches(match, sasl_username=""), expected)
            self.assertIs(matches(match, sasl_username="alice"), not expected)

    def test_a_network_contains_addresses_in_any_spelling(self) -> None:
        for address, inside in (
            ("192.0.2.255", True),
            ("192.0.3.0", False),
            ("::ffff:192.0.2.1", True),
            ("2001:db8::1", True),
            ("2001:db9::1", False),
            ("unknown", False),
            ("", False),
        ):
            match = "client_address:192.0.2.0/24, client_address:2001:db8::/32"
            self.assertIs(matches(match, client_address=address), inside, address)
            self.assertIs(
                matches(match.replace(":192", ":!192").replace(":2001", ":!2001"), client_address=address), not inside
            )

    def test_an_address_may_be_in_a_network_or_empty(self) -> None:
        match = "client_address:192.0.2.0/24, client_address:empty"
        self.assertTrue(matches(match))
        self.assertTrue(matches(match, client_address="192.0.2.1"))
        self.assertFalse(matches(match, client_address="unknown"))

    def test_a_suffix_matches_a_domain_all_names_under_it_and_their_addresses(self) -> None:
        for pattern in (".example.org", "*.example.org"):
            for value, inside in (
                ("example.org", True),
                ("MX.Example.org.", True),
                ("a.b.example.org", True),
                ("badexample.org", False),
                ("example.org.invalid", False),
                ("", False),
            ):
                self.assertIs(matches(f"helo_name:{pattern}", helo_name=value), inside, value)
                self.assertIs(matches(f"sender:{pattern}", sender=value and f"bob@{value}"), inside, value)

    def test_an_at_sign_matches_the_addresses_of_one_domain(self) -> None:
        self.assertTrue(matches("sender:@example.org", sender="Bob@Example.ORG"))
        self.assertFalse(matches("sender:@example.org", sender="bob@mx.example.org"))
        self.assertFalse(matches("sender:@example.org", sender="example.org"))

    def test_one_condition_of_an_attribute_must_hold_and_none_of_the_negated_ones(self) -> None:
        match = "sender:@example.org, sender:@example.net, sender:!bob@example.org, client_address:192.0.2.0/24"
        self.assertTrue(matches(match, sender="ann@example.org", client_address="192.0.2.1"))
        self.assertTrue(matches(match, sender="bob@example.net", client_address="192.0.2.1"))
        self.assertFalse(matches(match, sender="bob@example.org", client_address="192.0.2.1"))
        self.assertFalse(matches(match, sender="ann@example.com", client_address="192.0.2.1"))
        self.assertFalse(matches(match, sender="ann@example.org", client_address="198.51.100.1"))


if __name__ == "__main__":
    unittest.main()
