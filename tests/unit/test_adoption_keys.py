"""The keys of CHAPPS 0.5."""

from __future__ import annotations

import pytest

from chapps_tw.adoption.keys import Kind, parse


@pytest.mark.parametrize(
    ("key", "kind", "parts"),
    [
        ("oqp:bob@example.com:attempts", Kind.COUNTS, ("bob@example.com",)),
        ("oqp:a:b:attempts", Kind.COUNTS, ("a:b",)),
        ("oqp:attempts:attempts", Kind.COUNTS, ("attempts",)),
        ("oqp:bøb:attempts", Kind.COUNTS, ("bøb",)),
        ("oqp:bob:limit", Kind.CACHED, ()),
        ("oqp:bob:margin", Kind.CACHED, ()),
        ("sda:bob:example.com", Kind.CACHED, ()),
        ("spf:example.com", Kind.CACHED, ()),
        ("grl:example.com", Kind.CACHED, ()),
        ("grl:192.0.2.1", Kind.TALLY, ("192.0.2.1",)),
        ("grl:2001:db8::1", Kind.TALLY, ("2001:db8::1",)),
        ("grl:192.0.2.1:s@x:r@y", Kind.TUPLE, ("192.0.2.1", "s@x", "r@y")),
        ("grl:192.0.2.1::r@y", Kind.TUPLE, ("192.0.2.1", "", "r@y")),
        ("grl:2001:db8::1:s@x:r@y", Kind.TUPLE, ("2001:db8::1", "s@x", "r@y")),
        ("grl:2001:db8::::r@y", Kind.TUPLE, ("2001:db8::", "", "r@y")),
        ("chapps:oqp:{bob}", Kind.FOREIGN, ()),
        ("something", Kind.FOREIGN, ()),
        ("", Kind.FOREIGN, ()),
    ],
)
def test_a_key_is_taken_apart(key: str, kind: Kind, parts: tuple[str, ...]) -> None:
    assert parse(key.encode()) == (key.encode(), kind, parts)


@pytest.mark.parametrize(
    "key", ["grl:192.0.2.1:a:b@x:c@y", "grl:unknown:s@x:r@y", "grl:a:b", "grl:2001:db8::1:z:b@x:r@y"]
)
def test_an_ambiguous_key_is_not(key: str) -> None:
    with pytest.raises(ValueError, match="contains a colon"):
        parse(key.encode())


def test_other_encodings_are_no_keys_of_chapps() -> None:
    with pytest.raises(ValueError, match="is not UTF-8"):
        parse(b"oqp:\xff:attempts")
    assert parse(b"\xff").kind is Kind.FOREIGN
