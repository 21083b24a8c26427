"""At which stages of an SMTP session Postfix must ask, so that a policy applies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

from chapps_tw.config.limits import STAGES_OF, RateLimit
from chapps_tw.interfaces.state import Unit

OBSERVATION_SECONDS: Final = 300.0
"""Seconds of traffic after which a listener should have been asked at every stage that it needs."""

RESTRICTIONS: Final = {
    "RCPT": "smtpd_recipient_restrictions",
    "DATA": "smtpd_data_restrictions",
    "END-OF-MESSAGE": "smtpd_end_of_data_restrictions",
}
"""The restriction list of Postfix that asks at a stage."""

# At later stages, Postfix names a recipient only if it is the only one.
_NAMED: Final = frozenset(("RCPT",))
# The same for messages to several recipients.
_STAGES: Final = {**STAGES_OF, Unit.DISTINCT_RECIPIENTS: _NAMED}


class Need(NamedTuple):
    """The stages that a policy needs.

    :ivar what: the policy, or its limits, for a sentence.
    :ivar stages: one of them suffices.
    :ivar why: why no other does.
    """

    what: str
    stages: frozenset[str]
    why: str

    def is_met(self, asked: Collection[str]) -> bool:
        """Return whether one of the stages is among those at which Postfix asks."""
        return not self.stages.isdisjoint(asked)

    @property
    def lists(self) -> str:
        """The restriction lists to choose from, in words."""
        return " or ".join(RESTRICTIONS[stage] for stage in RESTRICTIONS if stage in self.stages)


def of_message(name: str) -> Need:
    """Return the need of a policy that judges whole messages, or each recipient."""
    return Need(name, STAGES_OF[Unit.MESSAGES], "only then there is a message")


def of_recipient(name: str) -> Need:
    """Return the need of a policy that judges each recipient."""
    return Need(name, _NAMED, "at later stages, Postfix names the recipient only if there is one")


def of_units(name: str, units: Iterable[Unit]) -> Iterator[Need]:
    """Yield the needs of limits in some units."""
    for unit in sorted(set(units)):
        stages = " and ".join(stage for stage in RESTRICTIONS if stage in _STAGES[unit])
        yield Need(name, _STAGES[unit], f"{unit} are known only at {stages}")


def of_limits(limits: Iterable[RateLimit]) -> Iterator[Need]:
    """Yield the needs of ``[Limit NAME]``, one for each unit."""
    found = tuple(limits)
    for unit in sorted({limit.unit for limit in found}):
        yield from of_units(", ".join(f"[Limit {limit.name}]" for limit in found if limit.unit is unit), [unit])


def unmet(needs: Iterable[Need], asked: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each need that is not met by the stages at which a listener was asked."""
    for need in needs:
        if not need.is_met(asked):
            yield f"never applied: {need.what}, since {need.why}. Postfix has not asked there: add it to {need.lists}"
