"""Policy requests: parsing, limits, immutability."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chapps_tw.mail.request import MAX_REQUEST_BYTES, PolicyRequest, RequestError, _layouts, parse, parse_attributes
from tests.support.paths import RECORDED, RECORDED_3_10

REQUESTS = sorted([*RECORDED.glob("*.req"), *RECORDED_3_10.glob("*.req")])


@pytest.mark.parametrize("file", REQUESTS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_recorded_requests_of_postfix_are_parsed(file: Path) -> None:
    request = PolicyRequest(file.read_bytes())
    assert request.request == "smtpd_access_policy"
    assert len(request.attributes) == (31 if file.parent == RECORDED_3_10 else 29)
    assert request.get("protocol_state") in file.stem


def test_there_are_recorded_requests() -> None:
    assert len(REQUESTS) > 580


def test_requests_of_all_versions_of_postfix_are_parsed_by_a_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chapps_tw.mail.request._layouts", {})
    recorded = [folder / "out-single-02-DATA.req" for folder in (RECORDED, RECORDED_3_10)]
    requests = [file.read_bytes().rstrip(b"\n") for file in recorded]
    # Postfix 3.12 has this attribute.
    requests.append(requests[-1] + b"\ntls_sni=mx.example.com")
    for payload in requests:
        parse(payload)
    for payload in [*requests, *reversed(requests)]:
        assert type(parse(payload)) is re.Match
    latest = PolicyRequest(requests[-1])
    assert (latest.mail_version, latest.tls_sni, len(latest.attributes)) == ("3.10.13", "mx.example.com", 32)


def test_an_unknown_or_empty_attribute_is_none() -> None:
    request = PolicyRequest({"sender": "", "size": "0"})
    assert request.sender is None and request.colour is None
    assert request.size == "0"
    assert request.get("colour", "red") == "red"


def test_a_value_may_contain_an_equals_sign() -> None:
    assert PolicyRequest("sender=a=b@c\nx=\n").sender == "a=b@c"


@pytest.mark.parametrize("payload", ["a=1\nb=2", b"a=1\nb=2\n\n", ["a=1", "b=2"], {"a": "1", "b": "2"}])
def test_all_forms_of_payload_are_accepted(payload: str) -> None:
    assert PolicyRequest(payload).attributes == {"a": "1", "b": "2"}


def test_bytes_that_are_not_utf_8_are_kept() -> None:
    request = PolicyRequest(b"sender=\xe9@x")
    assert request.get("sender").encode("utf-8", "surrogateescape") == b"\xe9@x"


def test_a_request_is_immutable() -> None:
    request = PolicyRequest("a=1")
    with pytest.raises(AttributeError):
        request.a = "2"
    with pytest.raises(AttributeError):
        del request.a


@pytest.mark.parametrize(
    "payload",
    [
        *(b"no equals sign", b"", b"a=1\n\nb=2", b"a=" + b"x" * MAX_REQUEST_BYTES, b"a=1\n" * 300),
        *(b"=1", b"a b=1", b"a-b=1", b" a=1", b"a =1", b"a\r=1", "ä=1".encode(), b"\xff=1", b"POST /?a=b HTTP/1.1\r"),
    ],
)
def test_an_invalid_request_is_rejected(payload: bytes) -> None:
    with pytest.raises(RequestError):
        parse_attributes(payload)


@pytest.mark.parametrize(("text", "count"), [("3", 3), ("", 0), ("x", 0), ("-1", 0), ("9999999999", 0), ("٣", 0)])
def test_an_invalid_recipient_count_is_zero(text: str, count: int) -> None:
    assert PolicyRequest({"recipient_count": text}).recipients == count


@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9_]{1,20}", fullmatch=True), st.binary(max_size=50)))
def test_any_values_are_parsed_unchanged(attributes: dict[str, bytes]) -> None:
    clean = {name: value.replace(b"\n", b"") for name, value in attributes.items()} or {"a": b"1"}
    payload = b"\n".join(name.encode() + b"=" + value for name, value in clean.items())
    found = parse_attributes(payload)
    assert {name: value.encode("utf-8", "surrogateescape") for name, value in found.items()} == clean


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=20), min_size=4, max_size=4))
def test_requests_with_the_same_names_are_parsed_alike(values: list[str]) -> None:
    names = ("request", "sender", "recipient", "colour")
    lines = [f"{name}={value}" for name, value in zip(names, values, strict=True)]
    for _ in range(2):
        assert parse_attributes("\n".join(lines).encode()) == dict(zip(names, values, strict=True))
    assert parse_attributes("\n".join(reversed(lines)).encode()) == dict(zip(names, values, strict=True))


def test_any_order_of_names_is_parsed_and_a_few_are_cached() -> None:
    for _ in range(2):
        for number in range(40):
            names = [f"name{(place + number) % 40}" for place in range(number + 1)]
            payload = "\n".join(f"{name}={name}={number}" for name in names)
            assert parse_attributes(payload.encode()) == {name: f"{name}={number}" for name in names}
    assert len(_layouts) <= 8


def test_the_last_value_of_a_repeated_name_wins() -> None:
    for _ in range(2):
        assert parse_attributes(b"a=1\nb=2\na=3") == {"a": "3", "b": "2"}


@pytest.mark.parametrize("file", REQUESTS[::20], ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_one_invalid_line_makes_a_request_invalid(file: Path) -> None:
    lines = file.read_bytes().rstrip(b"\n").split(b"\n")
    parse_attributes(b"\n".join(lines))
    for place, line in enumerate(lines):
        for wrong in (line.replace(b"=", b""), b" " + line, b"", b"=" + line):
            with pytest.raises(RequestError):
                parse_attributes(b"\n".join([*lines[:place], wrong, *lines[place + 1 :]]))


def test_a_request_of_a_known_layout_has_the_same_values_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chapps_tw.mail.request._layouts", {})
    payload = b"request=smtpd_access_policy\nsender=a@b.example\nrecipient=\nsize=12"
    parse(payload)
    match = parse(payload)
    assert type(match) is re.Match
    known, other = PolicyRequest(match), PolicyRequest(dict(match.groupdict()))
    for request in (known, other):
        assert request.get("sender") == request.sender == "a@b.example"
        assert (request.get("recipient", "-"), request.get("helo_name", "-")) == ("-", "-")
        assert request.select(("size", "sender")) == ("12", "a@b.example")
        assert request.select(("helo_name", "recipient", "size")) == ("", "", "12")
    assert known == other
    assert hash(known) == hash(other)
    assert repr(known) == repr(other)
    assert known.attributes == other.attributes == parse_attributes(payload)


def test_attribute_names_that_are_no_identifiers_are_read() -> None:
    for _ in range(2):
        assert PolicyRequest(parse(b"1st=a\n2nd=b")).attributes == {"1st": "a", "2nd": "b"}
