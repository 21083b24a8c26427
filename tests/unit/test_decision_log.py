"""The line that is logged for each answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from sys import getsizeof

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.request import PostfixPolicyRequest
from chapps_tw.observe.decision_log import RECENT_ROOM, DecisionLog, beside
from chapps_tw.observe.decision_record import FORMS, Record, as_json, as_text, from_json, from_text, record_of

DECISION = Decision(
    "REJECT quota fulfilled", Reason.QUOTA_EXCEEDED, "OutboundQuotaPolicy", {"limit": 12, "used": 12, "wait": 60}
)
ATTRIBUTES = {
    "protocol_state": "RCPT",
    "sender": "bob@example.org",
    "recipient": "x@example.net",
    "client_address": "192.0.2.1",
    "instance": "1.2.3",
    "queue_id": "ABC",
}


Entry = tuple[str, str, PostfixPolicyRequest, Decision, float, str]


def found(log: DecisionLog, wanted: Mapping[str, str]) -> list[Record]:
    """The records that a search finds."""
    return [record for record in log.search(wanted).records if record is not None]


def entry(decision: Decision = DECISION, also: str = "", **attributes: str) -> Entry:
    return "outbound", "bob", PostfixPolicyRequest(ATTRIBUTES | attributes), decision, 1763636645.1234, also


def log_of(form: str = "text", write: Callable[[bytes], None] | None = None, clock: Clock | None = None) -> DecisionLog:
    return DecisionLog(FORMS[form], write, (clock or Clock()).callLater)


def test_a_line_tells_what_was_decided_why_and_for_whom() -> None:
    assert as_text(*entry()) == (
        "2025-11-20T11:04:05.123Z listener=outbound policy=OutboundQuotaPolicy"
        ' action="REJECT quota fulfilled" reason=quota_exceeded limit=12 used=12 wait=60 user=bob'
        " sender=bob@example.org recipient=x@example.net client=192.0.2.1 instance=1.2.3 queue_id=ABC stage=RCPT"
    )


def test_the_json_form_says_the_same() -> None:
    found = json.loads(as_json(*entry()))
    assert found["figures"] == {"limit": 12, "used": 12, "wait": 60}
    assert (found["reason"], found["user"], found["time"]) == ("quota_exceeded", "bob", 1763636645.123)


@pytest.mark.parametrize("value", ["a b", 'a"b', "a\nuser=root", "\udce9", "a\u2028b", "x" * 9000])
def test_what_a_client_sends_cannot_forge_a_line(value: str) -> None:
    line = as_text(*entry(sender=value))
    assert len(line.splitlines()) == 1 and len(line) < 3000
    assert line.count(" user=") == 1
    line.encode()
    assert len(as_json(*entry(sender=value)).splitlines()) == 1


@given(st.text(max_size=100))
def test_every_line_can_be_taken_apart_again(value: str) -> None:
    line = as_text(*entry(sender=value))
    shown = line.split(" sender=", 1)[1].rsplit(" recipient=", 1)[0]
    assert (json.loads(shown) if shown.startswith('"') else shown) == value


@pytest.mark.parametrize("value", ["", "a b", "a\\b", 'a "b"', "a b\\c", "ä", "ä b", "a\tb"])
def test_details_can_be_read_again(value: str) -> None:
    line = as_text(*entry(DECISION._replace(detail=value)))
    shown = line.partition(" detail=")[2]
    assert (json.loads(shown) if shown.startswith('"') else shown) == value


@pytest.mark.parametrize("name", ["my list", 'a "b" reason=c', "ä", "ä b"])
def test_a_listener_of_any_name_is_read_again(name: str) -> None:
    for form in FORMS.values():
        assert form.read(form.write(name, *entry()[1:])).listener == name


def test_letters_of_any_alphabet_are_shown_as_they_are() -> None:
    assert " sender=müller recipient=" in as_text(*entry(sender="müller"))


def test_that_greylisting_is_asked_for_is_told() -> None:
    asking = DECISION._replace(detail="mailfrom none.net", greylist=True)
    assert as_text(*entry(asking)).endswith(' detail="mailfrom none.net; asks for greylisting"')
    assert json.loads(as_json(*entry(asking)))["detail"] == "mailfrom none.net; asks for greylisting"


def of(policy: str, reason: Reason, action: str = "DUNNO", shadow: str = "") -> Decision:
    return Decision(action, reason, policy, shadow=shadow)


def test_what_policies_said_after_the_one_that_answers_is_told() -> None:
    header = of("SPF", Reason.SPF_PASS, action="PREPEND Received-SPF: pass")
    passed, shadowed = of("GRL", Reason.GREYLIST_PASSED), of("GRL", Reason.GREYLIST_FIRST, shadow="DEFER")
    quota = of("OQP", Reason.WITHIN_QUOTA)
    assert beside(header, [header, passed]) == "GRL:greylist_passed"
    assert beside(header, [header, passed, quota]) == "GRL:greylist_passed,OQP:within_quota"
    assert beside(quota, [passed, quota]) == ""
    assert beside(header, [header]) == ""
    with_header = header._replace(action="DUNNO")
    assert beside(with_header, [header, passed]) == "GRL:greylist_passed"
    assert beside(header, [header, shadowed]) == ""


def test_it_is_the_last_of_the_line() -> None:
    found = entry(also="GRL:greylist_passed,OQP:within_quota")
    assert as_text(*found).endswith(" stage=RCPT also=GRL:greylist_passed,OQP:within_quota")
    assert json.loads(as_json(*found))["also"] == "GRL:greylist_passed,OQP:within_quota"


@pytest.mark.parametrize(("write", "read"), [(as_text, from_text), (as_json, from_json)])
@given(st.text(max_size=400), st.text(max_size=400), st.text(max_size=50), st.booleans())
def test_a_line_is_read_as_what_it_was_made_of(
    write: Callable[..., str], read: Callable[[str], Record], sender: str, text: str, other: str, greylist: bool
) -> None:
    figures = {"limit": 12, "wait": -1, "ratio": 1e-7, "most": 1.5e300}
    made = Decision(f"REJECT {text}", Reason.QUOTA_EXCEEDED, "P", figures, text, greylist, "", other, "cache dns")
    given = entry(made, also="GRL:greylist_passed", sender=sender, recipient=other, client_address="", queue_id=text)
    assert read(write(*given)) == record_of(*given)._replace(time=1763636645.123)


@pytest.mark.parametrize(
    "wanted", ["Bob@BÜCHER.example", "bob@bücher.example", "bob@xn--bcher-kva.example", "BOB@XN--BCHER-KVA.example."]
)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("came", ["bob@bücher.example", "BOB@Bücher.example", "Bob@XN--bcher-kva.Example"])
def test_addresses_are_found_in_any_form(wanted: str, form: str, came: str) -> None:
    log = log_of(form)
    log.add(*entry(sender=came, recipient=came))
    for name in ("sender", "recipient"):
        assert [getattr(each, name) for each in found(log, {name: wanted})] == [came]
        assert not found(log, {name: "other" + wanted})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ['a "b"', "a\\b", "É", "é é", "a\tb", "\udce9", "root", "a=b c"])
def test_odd_names_are_found_and_no_others(form: str, name: str) -> None:
    log = log_of(form)
    for each in (name, "other", f"x {name}", f"sender={name}"):
        log.add(
            "outbound", each, PostfixPolicyRequest({"sender": f"{each}@example.org", "queue_id": each}), DECISION, 1.5
        )
    for wanted in ({"user": name}, {"sender": f"{name}@example.org"}, {"sender": f"{name.lower()}@EXAMPLE.org"}):
        assert [each.user for each in found(log, wanted)] == [name], wanted


@pytest.mark.parametrize("form", FORMS)
def test_users_are_found_as_they_are_and_the_null_sender_by_nothing(form: str) -> None:
    log = log_of(form)
    log.add(*entry(sender=""))
    assert len(found(log, {"user": "bob", "sender": ""})) == 1
    assert not found(log, {"user": "Bob"})


def test_lines_are_written_in_batches() -> None:
    clock = Clock()
    written: list[bytes] = []
    log = log_of("text", written.append, clock)
    log.add(*entry())
    log.add(*entry(sender="two@example.org"))
    assert written == []
    clock.advance(0.1)
    assert len(written) == 1 and written[0].count(b"\n") == 2
    clock.advance(1)
    log.add(*entry())
    clock.advance(0.1)
    assert len(written) == 2


def test_the_last_decisions_can_be_asked_for_newest_first() -> None:
    log = log_of()
    for number in range(6000):
        log.add(*entry(sender=f"{number % 2}@x", instance=str(number)))
    assert len(log.recent) == 5000
    assert [each.instance for each in found(log, {"sender": "1@x"})[:2]] == ["5999", "5997"]
    search = log.search({"user": "nobody"})
    assert (list(search.records), search.searched, search.since) == ([None] * 5000, 5000, 1763636645.123)
    assert (list(log_of().search({}).records), *log_of().search({})[1:]) == ([], 0, 0.0)


def test_a_domain_finds_the_addresses_in_it_and_a_network_the_clients_in_it() -> None:
    log = log_of()
    requests = (
        {"sender": "a@Partner.example", "client_address": "203.0.113.7", "instance": "1"},
        {"sender": "b@sub.partner.example", "client_address": "203.0.114.7", "instance": "2"},
        {"sender": "partner.example@other.example", "client_address": "2001:db8::7", "instance": "3"},
        {"sender": "c@xn--bcher-kva.example", "client_address": "unknown", "instance": "4"},
    )
    for attributes in requests:
        log.add("inbound", "", PostfixPolicyRequest(attributes), Decision("DUNNO", Reason.SPF_PASS, "P"), 1.5)
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
        assert [each.instance for each in found(log, wanted)] == instances, wanted


def test_long_decisions_leave_room_for_fewer() -> None:
    log = log_of()
    for number in range(4900):
        log.add(*entry(sender="\u20ac " * 400, recipient="\u20ac " * 400, instance=str(number)))
    assert sum(map(getsizeof, log.recent)) <= RECENT_ROOM
    assert 1000 < len(log.recent) < 4900
    assert found(log, {})[0].instance == "4899"
