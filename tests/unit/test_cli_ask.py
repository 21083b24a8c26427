"""How ``chapps-cli ask`` selects a configured listener."""

from __future__ import annotations

import pytest

from chapps_tw.cli.policy_request import address_of
from chapps_tw.cli.session import CommandError
from chapps_tw.config.settings import Listener, Settings

OUT, IN = ("SenderDomainAuthPolicy", "OutboundQuotaPolicy"), ("SPFEnforcementPolicy",)


def listener(name: str, listen: str, policies: tuple[str, ...] = OUT) -> Listener:
    return Listener(name=name, listen=listen, policies=policies)


def test_a_request_with_a_user_goes_to_an_outbound_listener_and_others_to_an_inbound_one() -> None:
    listeners = Settings().listeners
    assert address_of(listeners, "", True) == ("127.0.0.1", 10225)
    assert address_of(listeners, "", False) == ("127.0.0.1", 10226)
    assert address_of(listeners, "inbound", True) == ("127.0.0.1", 10227)
    assert address_of([listener("a", "tcp:9", IN)], "", True) == ("127.0.0.1", 9)


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("tcp:9", ("127.0.0.1", 9)),
        ("tcp:9:interface=0.0.0.0", ("127.0.0.1", 9)),
        (r"tcp6:9:interface=\:\:", ("::1", 9)),
        ("tcp:9:interface=192.0.2.1", ("192.0.2.1", 9)),
        (r"unix:/run/a\:b:mode=660", "/run/a:b"),
    ],
)
def test_the_address_of_an_endpoint_is_used(endpoint: str, address: object) -> None:
    assert address_of([listener("a", endpoint)], "", True) == address


def test_a_missing_listener_or_one_without_address_is_reported() -> None:
    listeners = [listener("a", "systemd:domain=INET:index=0"), listener("b", "tcp:9")]
    with pytest.raises(CommandError, match="has no address: give --port or --socket"):
        address_of(listeners, "", True)
    with pytest.raises(CommandError, match="no listener c; it has: a, b"):
        address_of(listeners, "c", True)
