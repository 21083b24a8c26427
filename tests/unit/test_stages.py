"""At which stages policies must be asked, and what is said if they are not."""

from __future__ import annotations

import pytest

from chapps_tw.config.limits import RateLimit, parse_window
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.state import Unit
from chapps_tw.policies.registry import BUILT_IN
from chapps_tw.policies.stages import of_limits, unmet


def limits(*units: Unit) -> list[RateLimit]:
    return [
        RateLimit(name=f"n{place}", per="client", unit=unit, amount=1, window=parse_window("1d"))
        for place, unit in enumerate(units)
    ]


@pytest.mark.parametrize(
    ("policy", "stage", "applies"),
    [
        ("GreylistingPolicy", "RCPT", True),
        ("GreylistingPolicy", "DATA", False),
        ("SPFEnforcementPolicy", "RCPT", True),
        ("SPFEnforcementPolicy", "END-OF-MESSAGE", False),
        ("SenderDomainAuthPolicy", "RCPT", True),
        ("SenderDomainAuthPolicy", "MAIL", False),
        ("OutboundQuotaPolicy", "END-OF-MESSAGE", True),
        ("OutboundQuotaPolicy", "CONNECT", False),
    ],
)
def test_each_policy_names_the_stages_that_it_needs(policy: str, stage: str, applies: bool) -> None:
    said = list(unmet(BUILT_IN.needs([policy], Settings()), [stage]))
    assert not said if applies else said[0].startswith(f"never applied: {policy}, since ")


@pytest.mark.parametrize(
    ("unit", "stage", "applies"),
    [
        (Unit.MESSAGES, "DATA", True),
        (Unit.MESSAGES, "MAIL", False),
        (Unit.RECIPIENTS, "RCPT", True),
        (Unit.DISTINCT_RECIPIENTS, "RCPT", True),
        (Unit.DISTINCT_RECIPIENTS, "DATA", False),
        (Unit.BYTES, "END-OF-MESSAGE", True),
        (Unit.BYTES, "RCPT", False),
    ],
)
def test_each_unit_of_limits_is_known_at_some_stages(unit: Unit, stage: str, applies: bool) -> None:
    said = list(unmet(of_limits(limits(unit)), [stage]))
    assert bool(said) is not applies


def test_what_is_said_names_the_limits_and_the_restriction_list() -> None:
    (sentence,) = unmet(of_limits(limits(Unit.BYTES, Unit.MESSAGES, Unit.BYTES)), ["RCPT"])
    assert sentence.startswith("never applied: [Limit n0], [Limit n2], since bytes are known only at END-OF-MESSAGE.")
    assert sentence.endswith("add it to smtpd_end_of_data_restrictions")
