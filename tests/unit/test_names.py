"""Normal forms of names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chapps_tw.mail.addresses import (
    normal_domain,
    normal_email,
    normal_name,
    split_address,
    unicode_domain,
    unquoted,
    without_extension,
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("localhost", "localhost"),
        ("1.2.example", "1.2.example"),
        ("example.1a", "example.1a"),
        ("XN--I-7IQ.ws", "xn--i-7iq.ws"),
    ],
)
def test_domains_become_lower_case_a_labels(text: str, name: str) -> None:
    assert normal_domain(text) == name


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a..b", ".a", "-a.b", "a-.b", "a b", "[192.0.2.1]", "a@b", "a/b", "x" * 64, "a." * 127 + "b"],
)
def test_an_invalid_domain_is_empty(text: str) -> None:
    assert normal_domain(text) == ""


@pytest.mark.parametrize("text", ["1.2.3.4", "1.2.3", "12345", "example.5.", "xn--zzzz", "a.xn--zzzz.example"])
def test_a_numeric_last_label_or_an_invalid_a_label_is_no_domain(text: str) -> None:
    assert normal_domain(text) == ""
    assert normal_email(f"a@{text}") == ""


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ('"a b"@c.example', "a b@c.example"),
        (r'"a\"b\\c"@d', r'a"b\c@d'),
        ('"a@b"@d', "a@b@d"),
        ('""@d', "@d"),
        ("a b@c.example", "a b@c.example"),
        ('"a"b@c', '"a"b@c'),
        ('a"b"@c', 'a"b"@c'),
        (r'"a\"@c', r'"a\"@c'),
        ('"a', '"a'),
    ],
)
def test_the_local_part_is_unquoted_as_postfix_does(text: str, address: str) -> None:
    assert unquoted(text) == address


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("Bob+x@Example.com", "Bob+x@example.com"),
        ("BöB@bücher.example", "BöB@xn--bcher-kva.example"),
        ("a b@c.example", "a b@c.example"),
        ("a%B!c@d.example.", "a%B!c@d.example"),
        ("A@b@D.example", "A@b@d.example"),
    ],
)
def test_fold_case_decides_the_case_of_the_local_part(text: str, email: str) -> None:
    assert normal_email(text, fold_case=False) == email
    assert normal_email(text) == email.lower()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Alice", "alice"),
        ("alice@EXAMPLE.ORG", "alice@example.org"),
        ("alice@example.org.", "alice@example.org"),
        ("Alice.", "alice."),
        ("JÜRGEN@BÜCHER.example", "jürgen@xn--bcher-kva.example"),
        ("ju\u0308rgen", "jürgen"),
        ("EXAMPLE\\Alice", "example\\alice"),
        ("A@b c", "a@b c"),
        ("x@Y@EXAMPLE.org", "x@y@example.org"),
        ("2001:DB8::1", "2001:db8::1"),
        ("\udce9@c", "\udce9@c"),
        ("None", "none"),
        ("", ""),
    ],
)
def test_a_login_has_one_normal_form(text: str, name: str) -> None:
    assert normal_name(text) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [("Alice@EXAMPLE.org", "Alice@example.org"), ("Alice", "Alice"), ("A@B@Bücher.x", "A@B@xn--bcher-kva.x")],
)
def test_without_fold_case_only_the_domain_becomes_lower_case(text: str, name: str) -> None:
    assert normal_name(text, fold_case=False) == name


@given(st.text(max_size=40) | st.text("aÅ\u0308İΣς@.ßx-", max_size=12), st.booleans())
def test_normalizing_a_name_twice_changes_nothing(text: str, fold_case: bool) -> None:
    name = normal_name(text, fold_case)
    assert normal_name(name, fold_case) == name
    assert not name.isascii() or not fold_case or name == name.lower()


def test_a_text_that_is_too_long_for_a_name_is_not_composed() -> None:
    # These marks would be put in order, which takes seconds.
    marks = "\u0315\u0300" * 15_000
    assert normal_name(f"E{marks}@EXAMPLE.com") == f"e{marks}@example.com"


@pytest.mark.parametrize("text", ["", "root", "a@", "@", "a@[192.0.2.1]", "a@b@", "a@b c"])
def test_an_address_without_a_domain_is_invalid(text: str) -> None:
    assert split_address(text) == ("", "")


@pytest.mark.parametrize("text", ["@d", "a\nb@d", "\udce9@d", "x" * 320 + "@d", "\u200e@d"])
def test_an_address_that_cannot_be_linked_still_has_a_domain(text: str) -> None:
    assert split_address(text) == ("", "d")


@pytest.mark.parametrize(
    ("address", "separators", "base"),
    [
        ("friend+shop@d", "+", "friend@d"),
        ("friend+a+b@d", "+", "friend@d"),
        ("friend+@d", "+", "friend@d"),
        ("a-b+c@d", "+-", "a@d"),
        ("a+b-c@d", "+-", "a@d"),
        ("+a+b@d", "+", ""),
        ("friend@d", "+", ""),
        ("friend@d+e", "+", ""),
        ("friend+shop@d", "", ""),
        ("", "+", ""),
    ],
)
def test_the_extension_starts_at_the_first_separator(address: str, separators: str, base: str) -> None:
    assert without_extension(address, separators) == base


@pytest.mark.parametrize("text", ["\udce9.example", "a\n.b", "a\0b", "☃" * 70])
def test_invalid_characters_make_a_domain_empty(text: str) -> None:
    assert normal_domain(text) == ""


@given(st.text(max_size=300))
def test_normalizing_a_domain_twice_changes_nothing(text: str) -> None:
    name = normal_domain(text)
    assert normal_domain(name) == name or name == ""
    assert len(name) <= 253 and name.isascii()


def test_a_labels_convert_back_to_u_labels() -> None:
    assert unicode_domain("xn--bcher-kva.example") == "bücher.example"
    assert unicode_domain("example.com") == "example.com"
    assert unicode_domain("xn--zzzzzzzzzz99999.example") == "xn--zzzzzzzzzz99999.example"
