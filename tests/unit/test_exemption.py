"""Clients that are exempt from the inbound policies."""

from __future__ import annotations

import pytest

from chapps_tw.config.settings import Chapps, Settings
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.network import parse_networks
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.exemption import Exemption


def exempted(networks: str | None = None, whitelisted: bool = False, **attributes: str) -> Decision | None:
    chapps = Chapps() if networks is None else Chapps(trusted_networks=parse_networks(networks))
    request = OutboundPPR({"protocol_state": "RCPT", "client_address": "192.0.2.1"} | attributes)
    return Exemption(Settings(chapps=chapps), lambda _: whitelisted).of(request)


def reason(networks: str | None = None, whitelisted: bool = False, **attributes: str) -> str:
    found = exempted(networks, whitelisted, **attributes)
    return found.reason if found else ""


def test_other_clients_are_not_exempt() -> None:
    assert exempted() is None
    assert exempted(client_address="unknown") is None
    assert exempted(sasl_username="") is None


def test_authenticated_clients_are_exempt() -> None:
    assert exempted(sasl_username="alice") == Decision("DUNNO", Reason.LOGGED_IN, "Exemption")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_the_loopback_is_trusted_by_default_only(address: str) -> None:
    assert reason(client_address=address) == Reason.TRUSTED_NETWORK
    assert reason("", client_address=address) == ""


def test_trusted_networks_are_exempt() -> None:
    networks = "172.17.0.1, 2001:db8::/32"
    for address, trusted in (("172.17.0.1", True), ("172.17.0.2", False), ("2001:db8:1::1", True), ("::1", False)):
        assert reason(networks, client_address=address) == (Reason.TRUSTED_NETWORK if trusted else "")


def test_clients_on_the_helo_whitelist_are_exempt() -> None:
    assert exempted(whitelisted=True) == Decision("DUNNO", Reason.HELO_WHITELISTED, "HeloWhitelist")


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "gateway", "10.0.0.0/8/8", "[::1]", "127.0.0.1:25"])
def test_an_invalid_network_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="networks such as"):
        parse_networks(text)
