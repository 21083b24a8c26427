"""What every LiveState promises. Mixed into a TestCase that makes one for each test."""

from __future__ import annotations

from tests.contract_greylisting import GreylistContract
from tests.contract_spending import SpendingContract
from tests.contract_verdicts import VerdictContract


class LiveStateContract(SpendingContract, VerdictContract, GreylistContract):
    """All promises."""
