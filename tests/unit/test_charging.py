"""What a request costs, by unit and stage."""

from __future__ import annotations

import unittest

from chapps_tw.config.limits import STAGES_OF
from chapps_tw.interfaces.state import Message, Unit
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.policies.charging import STAGES, amount_of, message_of


def request(**values: str) -> PolicyRequest:
    return PolicyRequest({"instance": "1a.2", **values})


class MessageTests(unittest.TestCase):
    def test_a_request_at_rcpt_is_about_one_more_recipient(self) -> None:
        found = message_of(request(recipient="Bob@Example.NET"), "RCPT", 600.0)
        self.assertEqual(found, Message("1a.2", "bob@example.net", False, 600.0))

    def test_a_request_at_a_later_stage_is_about_the_whole_message(self) -> None:
        for stage in ("DATA", "END-OF-MESSAGE"):
            self.assertEqual(message_of(request(), stage), Message("1a.2", "", True))

    def test_a_request_at_rcpt_that_names_no_recipient_is_about_the_whole_message(self) -> None:
        self.assertEqual(message_of(request(), "RCPT"), Message("1a.2", "", True))

    def test_a_request_at_a_later_stage_names_its_only_recipient(self) -> None:
        self.assertEqual(message_of(request(recipient="bob@example.net"), "DATA").recipient, "bob@example.net")


class AmountTests(unittest.TestCase):
    def test_a_message_counts_one_at_every_stage(self) -> None:
        for stage in STAGES:
            self.assertEqual(amount_of(Unit.MESSAGES, request(recipient_count="7"), stage), 1)

    def test_recipients_are_counted_by_the_state_at_rcpt_and_told_by_postfix_later(self) -> None:
        asked = request(recipient_count="7")
        self.assertEqual(amount_of(Unit.RECIPIENTS, asked, "RCPT"), 0)
        self.assertEqual(amount_of(Unit.RECIPIENTS, asked, "DATA"), 7)
        self.assertEqual(amount_of(Unit.RECIPIENTS, asked, "END-OF-MESSAGE"), 7)

    def test_a_missing_number_of_recipients_is_left_to_the_state(self) -> None:
        self.assertEqual(amount_of(Unit.RECIPIENTS, request(), "DATA"), 0)

    def test_bytes_are_the_size_for_each_recipient_at_the_end_of_the_message(self) -> None:
        asked = request(size="1000", recipient_count="3")
        self.assertEqual(amount_of(Unit.BYTES, asked, "END-OF-MESSAGE"), 3000)
        self.assertEqual(amount_of(Unit.BYTES, request(size="1000"), "END-OF-MESSAGE"), 1000)

    def test_bytes_are_unknown_at_earlier_stages_where_the_client_merely_claims_a_size(self) -> None:
        for stage in ("RCPT", "DATA"):
            self.assertIsNone(amount_of(Unit.BYTES, request(size="1000", recipient_count="3"), stage))

    def test_a_size_that_is_no_number_is_unknown(self) -> None:
        for size in ("", "-1", "1e3", "٣", "9" * 30):
            self.assertIsNone(amount_of(Unit.BYTES, request(size=size), "END-OF-MESSAGE"), size)

    def test_distinct_recipients_need_a_request_that_names_one(self) -> None:
        for stage in STAGES:
            self.assertEqual(amount_of(Unit.DISTINCT_RECIPIENTS, request(recipient="bob@example.net"), stage), 0)
            self.assertIsNone(amount_of(Unit.DISTINCT_RECIPIENTS, request(), stage))

    def test_an_amount_is_known_only_at_the_stages_of_its_unit(self) -> None:
        asked = request(size="1000", recipient_count="3", recipient="bob@example.net")
        for unit in Unit:
            known = {stage for stage in STAGES if amount_of(unit, asked, stage) is not None}
            self.assertEqual(known, STAGES_OF[unit])


if __name__ == "__main__":
    unittest.main()
