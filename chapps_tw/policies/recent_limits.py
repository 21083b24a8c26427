"""The limits of a user as they were last found, and what a request costs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from chapps_tw.interfaces.state import CacheVersion, Charge, Unit, ValueKey
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.policies.charging import amount_of
from chapps_tw.policies.limits import ActiveLimit, UserLimits

Charged: TypeAlias = tuple[Sequence[ActiveLimit], Sequence[Charge], Sequence[Charge]]
"""Limits that apply to a request, what it costs those that stop mail, and what it costs the others, which hold it."""


class Found(NamedTuple):
    """Limits of a user.

    :ivar limits: with the overrides in force.
    :ivar version: that the cached values behind them are of; ``None`` if they were just read.
    :ivar source: of the values.
    :ivar recent: knows what a request costs.
    """

    limits: UserLimits
    version: CacheVersion | None
    source: str
    recent: RecentLimits


class RecentLimits:
    """Resolved limits with the cached values that they come from. Most requests of a user cost the same.

    :ivar keys, texts: the cached values.
    :ivar limits: without overrides.
    :ivar charged: what the last request with these limits cost.
    """

    __slots__ = ("_key", "_sized", "_user", "charged", "keys", "limits", "texts")

    def __init__(
        self, keys: tuple[ValueKey, ...], texts: list[str], limits: UserLimits, user: str, domain: str
    ) -> None:
        self.keys = keys
        self.texts = texts
        self.limits = limits
        self._user = (user, domain)
        self._sized = any(limit.unit is Unit.BYTES for limit in limits.active)
        self._key: tuple[str, str, bool] | None = None
        self.charged: Charged = ((), (), ())

    def charges(self, limits: UserLimits, request: PolicyRequest, stage: str) -> Charged:
        """Return what a request costs.

        :param limits: with overrides.
        :param stage: RCPT, DATA or END-OF-MESSAGE.
        """
        if limits is not self.limits or (self._sized and stage == "END-OF-MESSAGE"):
            return self._make(limits, request, stage)
        # All that an amount depends on, but the size.
        key = (stage, request.get("recipient_count"), request.get("recipient") == "")
        if key != self._key:
            self.charged = self._make(limits, request, stage)
            self._key = key
        return self.charged

    def _make(self, limits: UserLimits, request: PolicyRequest, stage: str) -> Charged:
        active: list[ActiveLimit] = []
        charges: list[Charge] = []
        # Those that only hold the mail are last.
        for limit in sorted(limits.active, key=_holds):
            amount = amount_of(limit.unit, request, stage)
            if amount is not None:
                active.append(limit)
                account = limit.account(*self._user)
                charges.append(
                    Charge(account, limit.unit, amount, limit.amount, limit.window, limit.margin, limit.min_delta)
                )
        stopping = len(charges) - sum(map(_holds, active))
        # The state may remember tuples.
        return active, tuple(charges[:stopping]), tuple(charges[stopping:])


def _holds(limit: ActiveLimit) -> bool:
    return limit.action == "hold"
