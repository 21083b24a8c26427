"""What is said about limits that are never judged."""

from __future__ import annotations

import unittest

from twisted.internet.task import Clock

from chapps_tw.config.limits import RateLimit, parse_window
from chapps_tw.interfaces.state import Unit
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.policies.unasked import OBSERVATION_SECONDS, Unasked

RCPT = {"recipient": "bob@example.org", "recipient_count": "0", "size": "1000"}
DATA = {"recipient_count": "2", "size": "1000"}


class UnaskedTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[str] = []

    def watch(self, *units: Unit) -> Unasked:
        window = parse_window("1d")
        limits = [
            RateLimit(name=f"n{place}", per="client", unit=unit, amount=1, window=window)
            for place, unit in enumerate(units)
        ]
        return Unasked(limits, self.clock.seconds, self.said.append)

    def ask(self, unasked: Unasked, stage: str, values: dict[str, str]) -> None:
        unasked.note(PolicyRequest(values), stage)

    def test_a_limit_of_bytes_that_is_asked_about_at_rcpt_alone_is_told_once(self) -> None:
        watch = self.watch(Unit.BYTES, Unit.MESSAGES, Unit.BYTES)
        self.ask(watch, "RCPT", RCPT)
        self.clock.advance(OBSERVATION_SECONDS)
        self.ask(watch, "RCPT", RCPT)
        self.assertEqual(self.said, [])
        self.clock.advance(1)
        for _ in range(2):
            self.ask(watch, "RCPT", RCPT)
        (sentence,) = self.said
        self.assertIn("[Limit n0], [Limit n2] was not applied: bytes are known only at END-OF-MESSAGE", sentence)
        self.assertIn("smtpd_end_of_data_restrictions", sentence)
        self.assertTrue(watch.is_over)

    def test_a_listener_that_is_asked_at_the_end_of_the_message_is_not(self) -> None:
        watch = self.watch(Unit.BYTES)
        self.ask(watch, "END-OF-MESSAGE", DATA)
        self.assertTrue(watch.is_over)
        self.clock.advance(2 * OBSERVATION_SECONDS)
        self.ask(watch, "RCPT", RCPT)
        self.assertEqual(self.said, [])

    def test_distinct_recipients_need_requests_that_name_a_recipient(self) -> None:
        watch = self.watch(Unit.DISTINCT_RECIPIENTS)
        self.ask(watch, "DATA", DATA)
        self.clock.advance(OBSERVATION_SECONDS + 1)
        self.ask(watch, "DATA", DATA)
        (sentence,) = self.said
        self.assertIn("distinct_recipients are known only at RCPT", sentence)
        self.assertIn("smtpd_recipient_restrictions", sentence)

    def test_a_listener_that_is_asked_only_before_there_is_a_message_applies_no_limit(self) -> None:
        watch = self.watch(Unit.MESSAGES)
        self.ask(watch, "MAIL", {})
        self.clock.advance(OBSERVATION_SECONDS + 1)
        self.ask(watch, "MAIL", {})
        self.assertEqual(len(self.said), 1)

    def test_without_limits_there_is_nothing_to_find_out(self) -> None:
        self.assertTrue(self.watch().is_over)


if __name__ == "__main__":
    unittest.main()
