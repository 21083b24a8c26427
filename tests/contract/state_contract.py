"""What every LiveState promises. Mixed into a TestCase that makes one for each test."""

from __future__ import annotations

from tests.contract.greylisting import GreylistContract
from tests.contract.spending import SpendingContract
from tests.contract.verdicts import VerdictContract


class LiveStateContract(SpendingContract, VerdictContract, GreylistContract):
    """All promises."""
