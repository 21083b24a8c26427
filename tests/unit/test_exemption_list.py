"""The list of exemptions: who is on it, and its text."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from chapps_tw.interfaces.book import Exemption
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.policies.exemption_list import ExemptionList, decode, digest_of, encode, is_digest
from tests.support.examples import examples

NOW, LATER = 1000.0, 2000.0


def exemption(kind: str, value: str, scope: str = "spf", until: float = LATER, id: int = 1) -> Exemption:
    return Exemption(id, kind, value, scope, until, "a partner", "admin")


def found(
    *exemptions: Exemption,
    now: float = NOW,
    scope: str = "spf",
    fold_case: bool = True,
    asked: Mapping[str, str] | None = None,
) -> int:
    """Return the id of the exemption of a request, 0 if there is none."""
    request = PolicyRequest(
        {"client_address": "192.0.2.9", "sender": "Ann@Mail.Example.ORG", "recipient": "Bob@example.net"}
        | dict(asked or {})
    )
    exempt = ExemptionList(exemptions, fold_case).find(request, scope, now)
    return exempt.id if exempt else 0


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("client", "192.0.2.9"),
        ("client", "192.0.2.0/24"),
        ("client", "0.0.0.0/0"),
        ("sender", "ann@mail.example.org"),
        ("sender_domain", "mail.example.org"),
        ("sender_domain", ".mail.example.org"),
        ("sender_domain", ".example.org"),
        ("sender_domain", ".org"),
        ("recipient", "bob@example.net"),
    ],
)
def test_a_request_is_exempt_in_its_scope_until_the_end(kind: str, value: str) -> None:
    exempt = exemption(kind, value)
    assert found(exempt) == 1
    assert found(exempt, scope="greylisting") == 0
    assert [found(exempt, now=now) for now in (LATER - 0.1, LATER)] == [1, 0]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("client", "192.0.2.8"),
        ("client", "192.0.3.0/24"),
        ("client", "::/0"),
        ("client", "::c000:209"),
        ("sender", "mail.example.org"),
        ("sender", "bob@example.net"),
        ("sender_domain", "example.org"),
        ("sender_domain", ".ample.org"),
        ("sender_domain", "ann@mail.example.org"),
        ("sender_domain", "."),
        ("sender_domain", ""),
        ("recipient", "example.net"),
        ("recipient", "ann@mail.example.org"),
        ("unknown", "bob@example.net"),
    ],
)
def test_others_are_not_exempt(kind: str, value: str) -> None:
    assert found(exemption(kind, value)) == 0


def test_addresses_of_clients_are_compared_by_value() -> None:
    mapped = {"client_address": "::ffff:192.0.2.9"}
    assert found(exemption("client", "192.0.2.0/24"), asked=mapped) == 1
    long = {"client_address": "2001:DB8:0::1"}
    for value, id in (("2001:db8::/32", 1), ("2001:db8::1", 1), ("2001:db8::1/128", 1), ("2001:db9::/32", 0)):
        assert found(exemption("client", value), asked=long) == id
    assert found(exemption("client", "0.0.0.0/0"), asked={"client_address": "unknown"}) == 0
    assert found(exemption("client", "fe80::/10"), asked={"client_address": "fe80::1%eth0"}) == 1


def test_an_invalid_network_exempts_nobody_and_spoils_nothing() -> None:
    assert found(exemption("client", "192.0.2.300"), exemption("client", "192.0.2.0/24", id=2)) == 2


def test_names_are_compared_in_normal_form() -> None:
    sender = {"sender": "ann@B\u00dcCHER.example"}
    assert found(exemption("sender", "ann@xn--bcher-kva.example"), asked=sender) == 1
    assert found(exemption("sender_domain", "xn--bcher-kva.example"), asked=sender) == 1
    assert found(exemption("sender", "ann@mail.example.org"), fold_case=False) == 0
    assert found(exemption("sender", "Ann@mail.example.org"), fold_case=False) == 1


def test_the_null_sender_and_a_sender_without_domain_have_no_domain() -> None:
    for sender in ("", "root", "x@"):
        assert found(exemption("sender_domain", ".org"), asked={"sender": sender}) == 0


def test_of_several_for_the_same_the_longest_counts() -> None:
    for kind, value in (("client", "192.0.2.0/24"), ("recipient", "bob@example.net")):
        several = [exemption(kind, value, until=until, id=int(until)) for until in (1500.0, 3000.0, 2000.0)]
        assert found(*several, now=2500.0) == 3000


def test_one_that_is_over_hides_no_other() -> None:
    over = exemption("client", "192.0.2.9", until=NOW)
    for other in (exemption("client", "192.0.0.0/16", id=2), exemption("recipient", "bob@example.net", id=2)):
        assert found(over, other) == 2


def test_a_list_is_the_same_after_its_text() -> None:
    exemptions = (
        exemption("client", "192.0.2.0/24"),
        Exemption(2, "sender", "\udce9@x", "limit:a", 0.5, "\u00fc\n", ""),
    )
    text = encode(exemptions)
    assert decode(text) == exemptions
    assert decode(encode(())) == ()
    assert digest_of(text) == digest_of(encode(decode(text))) != digest_of(encode(()))
    assert is_digest(digest_of(text))
    assert not is_digest(text)


networks = st.builds(
    lambda number, bits: str(ip_network((number, bits), strict=False)), st.integers(0, 2**32 - 1), st.integers(0, 32)
)


@profile(max_examples=examples(100), deadline=None)
@given(st.lists(networks, max_size=20), st.randoms(use_true_random=False))
def test_a_client_is_exempt_if_one_of_the_networks_contains_it(values: list[str], chance: random.Random) -> None:
    exempt = ExemptionList([exemption("client", value) for value in values], True)
    for address in clients(values, chance):
        wanted = any(ip_address(address) in ip_network(value) for value in values)
        request = PolicyRequest({"client_address": address})
        assert (exempt.find(request, "spf", NOW) is not None) is wanted, address


def clients(values: Iterable[str], chance: random.Random) -> Iterable[str]:
    """Return addresses at the edges of some networks, and others."""
    for value in values:
        network = ip_network(value)
        first, last = int(network[0]), int(network[-1])
        yield from (str(ip_address(number)) for number in (first, last, first - 1, last + 1) if 0 <= number < 2**32)
    yield str(ip_address(chance.randrange(2**32)))
