"""What every LiveState promises about an account in which much was counted."""

from __future__ import annotations

from tests.contract.spending_case import SpendingCase
from tests.support.charges import charge, count_many, whole, window_of

HOUR, DAY = 3600.0, 86400.0


class MuchContract(SpendingCase):
    """Fifty thousand messages."""

    async def test_fifty_thousand_leave_an_hour_and_stay_in_a_day(self) -> None:
        await count_many(self.state, "bob", 50_000, (HOUR, DAY))
        self.advance(HOUR - 1)
        both = [charge(limit=10**6, window=window) for window in (HOUR, DAY)]
        self.assertEqual((await self.state.spend(whole("a"), both)).used, (50_001, 50_001))
        self.advance(1)
        self.assertEqual((await self.state.spend(whole("b"), both)).used, (2, 50_002))
        new = [*both, charge(limit=10**6, window=2 * HOUR)]
        self.assertEqual((await self.state.spend(whole("c"), new)).used, (3, 50_003, 50_003))
        self.advance(DAY - HOUR)
        self.assertEqual((await self.state.spend(whole("d"), both)).used, (1, 4))
        usages = await self.state.usage([window_of(each) for each in new])
        self.assertEqual([each.used for each in usages], [1, 4, 1])
