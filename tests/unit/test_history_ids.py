"""Ids of the history, and decisions as rows."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from chapps_tw.history.conditions import is_address, is_domain
from chapps_tw.history.rows import COLUMNS, client_key, row_of
from chapps_tw.history.table import MAX_ID, Ids, id_at, time_of
from tests.support.history import MOMENT, record


def test_an_id_has_its_time_in_milliseconds() -> None:
    ids = Ids(2047)
    for moment in (0.001, MOMENT, MOMENT + 0.123, 3e9):
        assert time_of(ids.next(moment)) == pytest.approx(moment, abs=1e-6)


def test_ids_increase_also_within_a_millisecond_and_when_the_clock_is_set_back_a_little() -> None:
    ids = Ids(0)
    made = [ids.next(MOMENT) for _ in range(3000)] + [ids.next(MOMENT - 59) for _ in range(10)]
    assert made == sorted(set(made))
    assert time_of(made[-1]) - MOMENT < 0.01


def test_ids_follow_a_clock_that_was_set_back() -> None:
    ids = Ids(0)
    ids.next(MOMENT)
    assert time_of(ids.next(MOMENT - 3600)) == MOMENT - 3600


def test_ids_of_two_processes_differ() -> None:
    one, other = Ids(1), Ids(2)
    moments = [MOMENT + number / 1000 for number in range(100) for _ in range(3)]
    assert not {one.next(each) for each in moments} & {other.next(each) for each in moments}


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 1e11, 1e300])
def test_every_time_has_an_id_that_fits_a_column(seconds: float) -> None:
    assert 0 <= id_at(seconds) <= MAX_ID


def test_addresses_sort_as_numbers() -> None:
    texts = ["0.0.0.0", "9.255.0.1", "10.0.0.0", "192.0.2.1", "::1", "2001:db8::", "ffff::"]
    keys = [client_key(ip_address(text)) for text in texts]
    assert keys == sorted(keys)


def test_a_row_names_domains_verb_and_refusal() -> None:
    sent = record(sender="Ann@b@EXAMPLE.com", recipient="root", action="defer_if_permit later", client="unknown")
    row = dict(zip(COLUMNS, row_of(7, "mx1", sent), strict=True))
    assert (row["sender"], row["sender_domain"]) == ("ann@b@example.com", "example.com")
    assert (row["recipient"], row["recipient_domain"]) == ("root", None)
    assert (row["verb"], row["refused"]) == ("DEFER_IF_PERMIT", 1)
    assert (row["client"], row["client_key"]) == ("unknown", None)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a@b", "address"),
        ("a@b@c", "address"),
        ("@b", "domain"),
        ("@", "part"),
        ("a@", "part"),
        ("b.example", "part"),
        ("", "part"),
    ],
)
def test_a_text_means_an_address_a_domain_or_a_part(text: str, meaning: str) -> None:
    assert (is_address(text), is_domain(text)) == (meaning == "address", meaning == "domain")
