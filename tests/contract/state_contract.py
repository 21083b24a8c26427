"""What every LiveState promises. Mixed into a TestCase that makes one for each test."""

from __future__ import annotations

from tests.contract.adoption import AdoptionContract
from tests.contract.cached_values import CachedValuesContract
from tests.contract.distinct_recipients import DistinctRecipientsContract
from tests.contract.events import EventContract
from tests.contract.greylisting import GreylistContract
from tests.contract.reservations import ReservationContract
from tests.contract.spending import SpendingContract
from tests.contract.spending_many import ManyChargesContract
from tests.contract.spending_much import MuchContract


class LiveStateContract(
    SpendingContract,
    ManyChargesContract,
    MuchContract,
    DistinctRecipientsContract,
    ReservationContract,
    CachedValuesContract,
    EventContract,
    AdoptionContract,
    GreylistContract,
):
    """All promises."""
