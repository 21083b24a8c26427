"""Values of exemptions are checked, and stored in one form."""

from __future__ import annotations

import re

import pytest

from chapps_tw.rest.exemptions import normal_value


@pytest.mark.parametrize(
    ("kind", "given", "stored"),
    [
        ("client", "192.0.2.1", "192.0.2.1"),
        ("client", "192.0.2.1/32", "192.0.2.1"),
        ("client", "192.0.2.0/24", "192.0.2.0/24"),
        ("client", "[2001:DB8::]/32", "2001:db8::/32"),
        ("client", "[2001:DB8::1]", "2001:db8::1"),
        ("client", "::ffff:192.0.2.1", "192.0.2.1"),
        ("client", "::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("client", "0.0.0.0/0", "0.0.0.0/0"),
        ("sender", "News@Example.COM", "News@example.com"),
        ("sender", '"a b"@example.com', "a b@example.com"),
        ("recipient", "a@bücher.example", "a@xn--bcher-kva.example"),
        ("sender_domain", "Example.COM.", "example.com"),
        ("sender_domain", ".bücher.example", ".xn--bcher-kva.example"),
    ],
)
def test_a_value_has_one_form(kind: str, given: str, stored: str) -> None:
    assert normal_value(kind, given) == stored
    assert normal_value(kind, stored) == stored


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("192.0.2.1/24", "use 192.0.2.0/24 for the network, or 192.0.2.1 for the address"),
        ("2001:db8::1/32", "use 2001:db8::/32 for the network, or 2001:db8::1 for the address"),
    ],
)
def test_a_network_with_host_bits_is_refused_with_both_remedies(given: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"^has bits set after its prefix: {re.escape(remedy)}$"):
        normal_value("client", given)


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        ("client", "mail.example.com", "an IPv4 or IPv6 address or network"),
        ("client", "192.0.2.0/33", "an IPv4 or IPv6 address or network"),
        ("client", "192.0.2", "an IPv4 or IPv6 address or network"),
        ("sender", "example.com", "a mail address"),
        ("recipient", "postmaster@", "a mail address"),
        ("sender_domain", "..example.com", "a domain"),
        ("sender_domain", "192.0.2.1", "a domain"),
    ],
)
def test_a_value_of_another_kind_is_refused(kind: str, given: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"^must be {wanted}"):
        normal_value(kind, given)
