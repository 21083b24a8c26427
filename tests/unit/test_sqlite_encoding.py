"""How the SQLite state encodes messages, and how it notices damage of them."""

from __future__ import annotations

from array import array

import pytest

from chapps_tw.state.sqlite import chunks
from chapps_tw.state.sqlite.columns import Columns, Row
from chapps_tw.state.sqlite.encoding import Damaged, seal, unseal

START = 1_700_000_000.0


def row(number: int, at: float = START, cost: int = 1) -> Row:
    return number, b"i%d" % number, at, cost, b"", 0.0


@pytest.mark.parametrize("position", range(0, 60, 3))
def test_a_value_with_a_changed_byte_is_damaged(position: int) -> None:
    value = seal(b"some bytes", b"", b"and others")
    assert unseal(value, 3) == [b"some bytes", b"", b"and others"]
    place = position % len(value)
    with pytest.raises(Damaged):
        unseal(value[:place] + bytes([value[place] ^ 64]) + value[place + 1 :], 3)


@pytest.mark.parametrize("value", [None, 7, "text", b"", b"short", seal(b"one"), seal(b"1", b"2", b"3", b"4")])
def test_a_value_that_was_not_sealed_with_as_many_parts_is_damaged(value: object) -> None:
    with pytest.raises(Damaged):
        unseal(value, 3)


def test_columns_that_do_not_fit_together_are_damaged() -> None:
    columns = Columns(0)
    columns.update([row(0), row(1)])
    for part, value in ((0, b"odd"), (1, b""), (2, b"i0"), (3, bytes(8)), (6, bytes(8)), (7, bytes(8))):
        parts = columns.parts()
        parts[part] = value
        with pytest.raises(Damaged):
            Columns.of_parts(0, parts)


def test_a_chunk_in_the_place_of_another_is_damaged() -> None:
    columns = Columns(5)
    columns.update([row(5)])
    data = chunks.encode(columns)
    assert chunks.decode(data, 0).instances == [b"i5"]
    with pytest.raises(Damaged):
        chunks.decode(data, 1)


def test_columns_keep_everything_about_their_messages() -> None:
    columns = Columns(7)
    columns.update([(7, b"a", START, 2, b"12345678", 0.0), (8, b"", START, 0, b"", START + 9), row(9)])
    columns.update([(8, b"b", START, 2**53, b"", 0.0), row(12)])
    again = chunks.decode(chunks.encode(columns), 0)
    assert again.instances == [b"a", b"b", b"i9", b"", b"", b"i12"]
    assert again.costs == array("q", [2, 2**53, 1, 0, 0, 1])
    assert again.times == array("d", [START] * 6)
    assert (again.first, again.seen, again.settle) == (7, {7: b"12345678"}, {})
