"""The Postfix of Debian 13 gets the same answers, and what it sends is counted the same."""

from __future__ import annotations

from tests.support.postfix_case import Debian13TestCase
from tests.system import (
    test_postfix_inbound,
    test_postfix_limits,
    test_postfix_names,
    test_postfix_outbound,
    test_postfix_rate_limit,
)


class EveryStageTests(Debian13TestCase, test_postfix_outbound.EveryStageTests):
    pass


class CountingTests(Debian13TestCase, test_postfix_outbound.CountingTests):
    pass


class SenderTests(Debian13TestCase, test_postfix_outbound.SenderTests):
    pass


class SpellingTests(Debian13TestCase, test_postfix_names.SpellingTests):
    pass


class PlanTests(Debian13TestCase, test_postfix_limits.PlanTests):
    pass


class RefusedAtTheEndTests(Debian13TestCase, test_postfix_limits.RefusedAtTheEndTests):
    pass


class NetworkLimitTests(Debian13TestCase, test_postfix_rate_limit.NetworkTests):
    pass


class RecipientTests(Debian13TestCase, test_postfix_inbound.RecipientTests):
    pass


class HeaderTests(Debian13TestCase, test_postfix_inbound.HeaderTests):
    pass
