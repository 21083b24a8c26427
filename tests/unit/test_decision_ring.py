"""The decision ring: searching and following."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.observe.decision_record import Entry, Record, as_record, entry_of
from chapps_tw.observe.decision_ring import MAX_BYTES, MAX_DECISIONS, DecisionRing, Search
from tests.support.decisions import REFUSED, entry
from tests.support.memory import taken

PASSED = Decision("DUNNO", Reason.SPF_PASS, "P")


def found(ring: DecisionRing, wanted: Mapping[str, str]) -> list[Record]:
    """The records that a search finds."""
    return [each.record for each in ring.search(wanted).records if each is not None]


def sequences(search: Search) -> list[int]:
    return [each.sequence for each in search.records if each is not None]


def filled(count: int, start: int = 0, max_entries: int = MAX_DECISIONS) -> DecisionRing:
    ring = DecisionRing(start, max_entries)
    for number in range(count):
        ring.extend([entry(instance=str(number))])
    return ring


@pytest.mark.parametrize(
    "wanted", ["Bob@BÜCHER.example", "bob@bücher.example", "bob@xn--bcher-kva.example", "BOB@XN--BCHER-KVA.example."]
)
@pytest.mark.parametrize("came", ["bob@bücher.example", "BOB@Bücher.example", "Bob@XN--bcher-kva.Example"])
def test_addresses_match_in_any_form(wanted: str, came: str) -> None:
    ring = DecisionRing()
    ring.extend([entry(sender=came, recipient=came)])
    for name in ("sender", "recipient"):
        assert [getattr(each, name) for each in found(ring, {name: wanted})] == [came]
        assert not found(ring, {name: "other" + wanted})


@pytest.mark.parametrize("name", ['a "b"', "a\\b", "É", "é é", "a\tb", "\udce9", "root", "a=b c"])
def test_unusual_names_match_exactly(name: str) -> None:
    ring = DecisionRing()
    for each in (name, "other", f"x {name}", f"sender={name}"):
        ring.extend([entry(user=each, sender=f"{each}@example.org", queue_id=each, instance=each)])
    for wanted in (
        {"user": name},
        {"queue_id": name},
        {"instance": name},
        {"sender": f"{name}@example.org"},
        {"sender": f"{name.lower()}@EXAMPLE.org"},
    ):
        assert [each.user for each in found(ring, wanted)] == [name], wanted


def test_users_match_exactly_and_the_null_sender_matches_an_empty_value() -> None:
    ring = DecisionRing()
    ring.extend([entry(sender="")])
    assert len(found(ring, {"user": "bob", "sender": ""})) == 1
    assert not found(ring, {"user": "Bob"})


def test_a_domain_matches_its_addresses_and_a_network_its_clients() -> None:
    ring = DecisionRing()
    requests = (
        {"sender": "a@Partner.example", "client_address": "203.0.113.7", "instance": "1"},
        {"sender": "b@sub.partner.example", "client_address": "203.0.114.7", "instance": "2"},
        {"sender": "partner.example@other.example", "client_address": "2001:db8::7", "instance": "3"},
        {"sender": "c@xn--bcher-kva.example", "client_address": "unknown", "instance": "4"},
    )
    for attributes in requests:
        ring.extend([entry(PASSED, **attributes)])
    for wanted, instances in (
        ({"sender": "partner.example"}, ["1"]),
        ({"sender": "@PARTNER.example"}, ["1"]),
        ({"sender": "bücher.example"}, ["4"]),
        ({"client": "203.0.113.0/24"}, ["1"]),
        ({"client": "203.0.112.0/22"}, ["2", "1"]),
        ({"client": "2001:db8::/32"}, ["3"]),
        ({"client": "2001:0db8::0007"}, ["3"]),
        ({"client": "unknown"}, ["4"]),
    ):
        assert [each.instance for each in found(ring, wanted)] == instances, wanted


def test_a_search_returns_the_newest_first() -> None:
    ring = DecisionRing()
    for number in range(6000):
        ring.extend([entry(sender=f"{number % 2}@x", instance=str(number))])
    assert len(ring) == 5000
    assert [each.instance for each in found(ring, {"sender": "1@x"})[:2]] == ["5999", "5997"]
    search = ring.search({"user": "nobody"})
    assert (list(search.records), search.searched, search.since) == ([None] * 5000, 5000, 1763636645.123)
    search = DecisionRing().search({})
    assert (list(search.records), search.searched, search.since) == ([], 0, 0.0)


def test_a_record_has_the_values_of_the_decision() -> None:
    ring = DecisionRing()
    decided = entry(REFUSED._replace(detail='a "b"', source="cache"), also="GRL:greylist_passed", sender="é \udce9@x")
    ring.extend([decided])
    assert found(ring, {}) == [as_record(decided)]
    [each] = [each for each in ring.search({}).records if each]
    assert each.as_dict() == {"sequence": 1, **as_record(decided).as_dict()}


def test_sequence_numbers_increase_by_one_also_after_drops() -> None:
    ring = filled(5, start=100, max_entries=3)
    assert (sequences(ring.search({})), ring.last_sequence) == ([105, 104, 103], 105)
    assert [each.instance for each in found(ring, {})] == ["4", "3", "2"]


@pytest.mark.parametrize(
    ("after", "wanted", "dropped"),
    [
        (105, [], False),
        (104, [105], False),
        (102, [103, 104, 105], False),
        # One is not there any more; none was ever given; those of a process whose clock was ahead.
        (101, [103, 104, 105], True),
        (0, [103, 104, 105], True),
        (106, [103, 104, 105], True),
    ],
)
def test_decisions_after_a_number_are_returned_oldest_first(after: int, wanted: list[int], dropped: bool) -> None:
    search = filled(5, start=100, max_entries=3).search({}, after)
    assert (sequences(search), search.searched) == (wanted, len(wanted))
    assert (search.last_sequence, search.dropped) == (105, dropped)


def test_nothing_is_dropped_before_the_first_decision() -> None:
    ring = DecisionRing(100)
    for after, dropped in ((None, False), (100, False), (99, True)):
        search = ring.search({}, after)
        assert (list(search.records), search.last_sequence, search.dropped) == ([], 100, dropped)


def test_a_follower_can_filter_by_field() -> None:
    ring = DecisionRing()
    for number in range(6):
        ring.extend([entry(user=f"u{number % 2}")])
    assert sequences(ring.search({"user": "u1"}, 2)) == [4, 6]


def test_a_follower_gets_each_decision_once() -> None:
    ring = DecisionRing()
    told: list[int] = []
    after = 0
    for count in (0, 3, 1, 0, 50, 7):
        for _ in range(count):
            ring.extend([entry()])
        search = ring.search({}, after)
        for _ in range(count // 3):
            ring.extend([entry()])
        told += sequences(search)
        after = search.last_sequence
    told += sequences(ring.search({}, after))
    assert told == list(range(1, ring.last_sequence + 1))


def test_the_ring_holds_fewer_long_decisions() -> None:
    ring = DecisionRing()
    for number in range(4900):
        ring.extend([entry(sender="\u20ac " * 400, recipient="\u20ac " * 400, instance=str(number))])
    assert 1000 < len(ring) < 4900
    assert found(ring, {})[0].instance == "4899"


@pytest.mark.parametrize("character", ["x", "é", "€", "\U0001f600", "\udcff"])
@pytest.mark.parametrize("length", [0, 20, 150, 5000])
def test_the_size_is_bounded_for_any_texts(character: str, length: int) -> None:
    max_bytes = MAX_BYTES // 32
    ring = DecisionRing(max_bytes=max_bytes)

    def fill() -> None:
        for number in range(500):
            ring.extend([_one_of_its_own(number + 1000, character * length)])

    # Texts of which each has an object of its own, and most of them wide characters, are not what mail brings.
    assert taken(fill) < 1.4 * max_bytes
    assert len(ring) > 1


def test_the_documented_number_of_typical_decisions_fits() -> None:
    ring = DecisionRing()
    header = (
        "PREPEND Received-SPF: pass (mx.example.net: domain of user{0}@customer.example.com designates 2001:db8::{0} "
    )
    header += (
        'as permitted sender) client-ip=2001:db8::{0}; envelope-from="user{0}@customer.example.com"; identity=mailfrom;'
    )

    def fill() -> None:
        for number in range(1000, 1000 + MAX_DECISIONS):
            decision = PASSED._replace(action=header.format(number), figures={"limit": number, "used": number + 1})
            given = {"sender": f"user{number}@customer.example.com", "recipient": f"friend{number}@example.net"}
            given |= {"instance": f"1a2b.{number}.0", "client_address": f"2001:db8::{number}"}
            ring.extend([entry(decision, **given)])

    assert taken(fill) < MAX_BYTES
    assert len(ring) == MAX_DECISIONS


def _one_of_its_own(number: int, text: str) -> Entry:
    """An entry that shares nothing with another."""
    names = ("sender", "recipient", "client_address", "instance", "queue_id", "protocol_state")
    attributes = {name: f"{name}{number}{text}" for name in names}
    figures: dict[str, int | float] = {"limit": number, "used": number + 1, "remaining": 1.5 * number, "wait": number}
    texts = [f"{name}{number}{text}" for name in ("action", "detail", "shadow", "also", "user")]
    decision = Decision(texts[0], Reason.WITHIN_QUOTA, "P", figures, texts[1], shadow=texts[2])
    return entry_of("outbound", texts[4], PolicyRequest(attributes), decision, number + 0.5, texts[3])
