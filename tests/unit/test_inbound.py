"""Inbound requests and the Received-SPF header."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chapps_tw.mail.decision import wire
from chapps_tw.mail.received_spf import MAX_HEADER, SpfResult, one_line, received_spf
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.policies.inbound import cached_client_network, client_network, domain_of, mail_address
from tests.support.paths import RECORDED

# RFC 7208, section 9.1, on one line; CFWS is one space, and a comment holds none of its own kind.
_ATOM = r"[0-9A-Za-z!#$%&'*+/=?^_`{|}~-]+"
_VALUE = rf'(?:{_ATOM}(?:\.{_ATOM})*|"(?:[ !#-\[\]-~]|\\[ -~])*")'
_PAIR = rf"(?:client-ip|envelope-from|helo|problem|receiver|identity|mechanism)={_VALUE}"
HEADER = re.compile(
    r"Received-SPF: (?:pass|fail|softfail|neutral|none|temperror|permerror)"
    rf"(?: \((?:[ !-'*-\[\]-~]|\\[ -~])*\))? {_PAIR}(?:; {_PAIR})*"
)


def recorded(name: str) -> PolicyRequest:
    return PolicyRequest((RECORDED / f"{name}.req").read_bytes())


@pytest.mark.parametrize(
    ("recipient", "domain"),
    [
        ("bob@example.org", "example.org"),
        ("bob@EXAMPLE.Org.", "example.org"),
        ("a@b@example.org", "example.org"),
        ("müller@bücher.example", "xn--bcher-kva.example"),
        ("bob@[192.0.2.1]", ""),
        ("postmaster", ""),
        ("example.org", ""),
        ("bob@", ""),
        ("bob@ex\udce4mple.org", ""),
        ("", ""),
    ],
)
def test_the_domain_of_the_recipient_is_what_follows_the_last_at(recipient: str, domain: str) -> None:
    assert domain_of(recipient) == domain


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("", "unknown"),
        ("\udcff" * 500, "?" * 64),
        ("192.0.2", "192.0.2"),
    ],
)
def test_the_client_is_its_network(address: str, network: str) -> None:
    assert client_network(address, 24, 64) == network


def test_prefixes_can_be_configured() -> None:
    network_of = cached_client_network(32, 48)
    for _ in range(2):
        assert network_of("192.0.2.77") == "192.0.2.77/32"
        assert network_of("2001:db8:1:2::1") == "2001:db8:1::/48"
    assert cached_client_network(24, 64)("192.0.2.77") == "192.0.2.0/24"


@given(st.text(), st.integers(0, 32), st.integers(0, 128))
def test_any_client_address_has_a_network_of_printable_ascii(text: str, ipv4: int, ipv6: int) -> None:
    assert re.fullmatch(r"[!-~]{1,64}", client_network(text, ipv4, ipv6))


def test_recorded_requests_have_a_client_network() -> None:
    network_of = cached_client_network(24, 64)
    assert network_of(recorded("in-ipv6-01-RCPT").get("client_address")).endswith("::/64")
    assert network_of(recorded("in-ipv4-mapped-01-RCPT").get("client_address")).endswith(".0/24")


def test_addresses_compare_without_case_and_always_encode() -> None:
    assert mail_address("Alice+Tag@Example.COM") == "alice+tag@example.com"
    assert mail_address("\udce4@example.com").encode("utf-8") == rb"\udce4@example.com"
    assert mail_address("\udce4@example.com") != mail_address("\udce5@example.com")
    assert mail_address("x@\udce4.example").encode("utf-8") == rb"x@\udce4.example"


def test_a_domain_in_an_address_compares_as_a_labels() -> None:
    assert mail_address("Jürgen@BÜCHER.example") == "jürgen@xn--bcher-kva.example"
    assert mail_address("jürgen@xn--bcher-kva.example") == "jürgen@xn--bcher-kva.example"
    assert mail_address("bücher") == "bücher" and mail_address("x@ü ü") == "x@ü ü"


def test_the_header_contains_all_known_values() -> None:
    found = SpfResult("pass", "mailfrom", "example.com", mechanism="ip4:192.0.2.0/24")
    header = received_spf(found, "192.0.2.1", "mail.example.com", "alice@example.com", "mx.example.org")
    assert header == (
        "Received-SPF: pass (mx.example.org: domain of alice@example.com designates 192.0.2.1 as permitted sender)"
        ' client-ip=192.0.2.1; envelope-from="alice@example.com"; helo=mail.example.com; identity=mailfrom;'
        ' receiver=mx.example.org; mechanism="ip4:192.0.2.0/24"'
    )


def test_the_header_for_the_null_sender_names_the_helo_identity() -> None:
    found = SpfResult("none", "helo", "mail.example.com")
    header = received_spf(found, "2001:db8::1", "mail.example.com", "", "")
    assert header == (
        "Received-SPF: none (domain of postmaster@mail.example.com does not designate permitted sender hosts)"
        ' client-ip="2001:db8::1"; envelope-from=""; helo=mail.example.com; identity=helo'
    )


@given(
    st.sampled_from(["pass", "fail", "softfail", "neutral", "none", "temperror", "permerror"]),
    st.text(max_size=400),
    st.text(max_size=400),
    st.text(max_size=400),
    st.text(max_size=400),
)
def test_the_header_is_well_formed_for_any_input(
    result: str, helo: str, sender: str, mechanism: str, problem: str
) -> None:
    found = SpfResult(result, "mailfrom", "example.com", mechanism=mechanism, problem=problem)
    header = received_spf(found, "192.0.2.1", helo, sender, "mx.example.org")
    assert HEADER.fullmatch(header), header
    assert len(header) <= MAX_HEADER
    assert wire("PREPEND " + header) == f"action=PREPEND {header}\n\n".encode()


def test_special_characters_in_quoted_strings_are_escaped() -> None:
    hostile = 'a"; identity=helo\\'
    header = received_spf(SpfResult("fail", domain="example.com"), "192.0.2.1", hostile, ")(" + hostile, "")
    assert HEADER.fullmatch(header)
    assert r'helo="a\"; identity=helo\\"' in header


def test_one_line_returns_short_printable_ascii() -> None:
    assert one_line("two\r\nlines\x00 \u2028 ü \udcff", 100) == "two  lines?   ? ?"
    assert len(one_line("x" * 5000)) == 200


def test_a_domain_is_never_truncated_or_altered() -> None:
    found = SpfResult("fail", domain="evil.example")
    long = f"{'a' * 125}@paypal.example"
    header = received_spf(found, "192.0.2.1", "", f"{long}.evil.example", "")
    assert header.endswith(f'envelope-from="\\"{"a" * 61}...\\"@paypal.example.evil.example"; identity=mailfrom')
    header = received_spf(found, "192.0.2.1", "", f"{long}@evil.example", "")
    assert header.endswith(f'envelope-from="\\"{"a" * 61}...\\"@evil.example"; identity=mailfrom')
    for domain in ("b" * 240 + ".example", "b" * 500 + ".example"):
        header = received_spf(SpfResult("fail", domain=domain), "192.0.2.1", domain, f"alice@{domain}", domain)
        names = [text.rstrip('";)') for text in re.split("[=@ ]", header) if "b" * 5 in text]
        assert set(names) <= {domain} and len(header) <= MAX_HEADER and HEADER.fullmatch(header)


def test_a_value_that_cannot_be_written_unchanged_is_omitted() -> None:
    mechanism = "include:" + "b" * 400 + ".example"
    found = SpfResult("pass", domain="example.com", mechanism=mechanism)
    for sender in ("jürgen@example.com", "alice@\udcff.example", "alice@ex\tample.com", "a\nb@example.com"):
        header = received_spf(found, "192.0.2.1", "h\udcff.example", sender, "mx\t.example.org")
        assert header == "Received-SPF: pass client-ip=192.0.2.1; identity=mailfrom"
    header = received_spf(found._replace(mechanism=""), "192.0.2.1", "", "jürgen@example.com", "")
    assert header == (
        "Received-SPF: pass (domain of example.com designates 192.0.2.1 as permitted sender)"
        " client-ip=192.0.2.1; identity=mailfrom"
    )


def test_u_labels_are_written_as_a_labels() -> None:
    found = SpfResult("pass", domain="xn--bcher-kva.example")
    header = received_spf(found, "192.0.2.1", "mail.bücher.example", "alice@bücher.example", "")
    assert header == (
        "Received-SPF: pass (domain of alice@xn--bcher-kva.example designates 192.0.2.1 as permitted sender)"
        ' client-ip=192.0.2.1; envelope-from="alice@xn--bcher-kva.example"; helo=mail.xn--bcher-kva.example;'
        " identity=mailfrom"
    )


def test_a_local_part_is_quoted_if_necessary() -> None:
    found = SpfResult("pass", domain="example.com")
    for local, quoted in (("a b", r"\"a b\""), ("b@example.org", r"\"b@example.org\""), ("a\\b", r"\"a\\\\b\"")):
        header = received_spf(found, "192.0.2.1", "", f"{local}@example.com", "")
        assert f'envelope-from="{quoted}@example.com"; identity' in header
