"""Tells that Postfix does not ask where a limit could be judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from chapps_tw.config.limits import STAGES_OF, RateLimit
from chapps_tw.interfaces.state import Unit
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.policies.charging import STAGES, amount_of

# Seconds of traffic after which a limit should have been judged.
OBSERVATION_SECONDS = 300.0

_RESTRICTIONS = {
    "RCPT": "smtpd_recipient_restrictions",
    "DATA": "smtpd_data_restrictions",
    "END-OF-MESSAGE": "smtpd_end_of_data_restrictions",
}


class Unasked:
    """Warns once about limits whose unit no request to a listener has told within :data:`OBSERVATION_SECONDS`.

    :param monotonic: monotonic clock.
    :param warn: logs a sentence.
    """

    def __init__(
        self, limits: Iterable[RateLimit], monotonic: Callable[[], float], warn: Callable[[str], None]
    ) -> None:
        self._limits = tuple(limits)
        self._monotonic = monotonic
        self._warn = warn
        self._since = -1.0
        self._missing = {limit.unit for limit in self._limits}

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to find out."""
        return not self._missing

    def note(self, request: PolicyRequest, stage: str) -> None:
        """Take notice of a request."""
        moment = self._monotonic()
        if self._since < 0:
            self._since = moment
        if stage in STAGES:
            self._missing = {unit for unit in self._missing if amount_of(unit, request, stage) is None}
        if moment - self._since > OBSERVATION_SECONDS:
            for unit in sorted(self._missing):
                self._warn(self._sentence(unit))
            self._missing = set()

    def _sentence(self, unit: Unit) -> str:
        names = ", ".join(f"[Limit {limit.name}]" for limit in self._limits if limit.unit is unit)
        known = STAGES_OF[unit] - ({"DATA", "END-OF-MESSAGE"} if unit is Unit.DISTINCT_RECIPIENTS else set())
        places = " or ".join(_RESTRICTIONS[stage] for stage in sorted(known))
        return (
            f"{names} was not applied: {unit} are known only at {' and '.join(sorted(known))}, where Postfix has not "
            f"asked this listener in the last {OBSERVATION_SECONDS / 60:.0f} minutes; name it in {places} too"
        )
