"""Records and log lines of decisions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.observe.decision_record import MAX_VALUE, as_json, as_record, as_text
from tests.support.decisions import REFUSED, entry

SPF = Decision(
    'PREPEND Received-SPF: pass (mx: "ok") receiver=mx;',
    Reason.SPF_PASS,
    "SPFEnforcementPolicy",
    {"ratio": 1e-07, "most": 1.5e300, "wait": -1},
    "mailfrom bücher.example",
    greylist=True,
    shadow="450 4.7.1 later",
    source="cache dns",
)
ODD = entry(SPF, "GRL:greylist_passed", sender='a\\"b c', recipient="ß@ä", client_address="", instance="\udce9\x7f")


def test_a_line_contains_decision_reason_and_request() -> None:
    assert as_text(entry()) == (
        "2025-11-20T11:04:05.123Z listener=outbound policy=OutboundQuotaPolicy"
        ' action="REJECT quota fulfilled" reason=quota_exceeded limit=12 used=12 wait=60 user=bob'
        " sender=bob@example.org recipient=x@example.net client=192.0.2.1 instance=1.2.3 queue_id=ABC stage=RCPT"
    )


def test_special_characters_are_quoted_as_in_json() -> None:
    assert as_text(ODD) == (
        "2025-11-20T11:04:05.123Z listener=outbound policy=SPFEnforcementPolicy"
        r' action="PREPEND Received-SPF: pass (mx: \"ok\") receiver=mx;" reason=spf_pass'
        " ratio=1e-07 most=1.5e+300 wait=-1 user=bob"
        r' sender="a\\\"b c" recipient="\u00df@\u00e4" client= instance="\udce9\u007f" queue_id=ABC stage=RCPT'
        r' shadow="450 4.7.1 later" detail="mailfrom b\u00fccher.example; asks for greylisting"'
        ' source="cache dns" also=GRL:greylist_passed'
    )


def test_the_json_format_has_the_same_values() -> None:
    assert as_json(ODD) == (
        '{"time": 1763636645.123, "listener": "outbound", "policy": "SPFEnforcementPolicy",'
        r' "action": "PREPEND Received-SPF: pass (mx: \"ok\") receiver=mx;", "reason": "spf_pass",'
        ' "figures": {"ratio": 1e-07, "most": 1.5e+300, "wait": -1}, "user": "bob",'
        r' "sender": "a\\\"b c", "recipient": "\u00df@\u00e4", "client": "", "instance": "\udce9\u007f",'
        ' "queue_id": "ABC", "stage": "RCPT", "shadow": "450 4.7.1 later",'
        r' "detail": "mailfrom b\u00fccher.example; asks for greylisting",'
        ' "source": "cache dns", "also": "GRL:greylist_passed"}'
    )


@pytest.mark.parametrize("value", ["a b", 'a"b', "a\nuser=root", "\udce9", "a\u2028b", "x" * 9000])
def test_clients_cannot_forge_a_line(value: str) -> None:
    line = as_text(entry(sender=value))
    assert len(line.splitlines()) == 1 and len(line) < 3000
    assert line.count(" user=") == 1
    line.encode()
    assert len(as_json(entry(sender=value)).splitlines()) == 1


@given(st.text(max_size=100))
def test_every_line_can_be_parsed(value: str) -> None:
    line = as_text(entry(sender=value))
    shown = line.split(" sender=", 1)[1].rsplit(" recipient=", 1)[0]
    assert (json.loads(shown) if shown.startswith('"') else shown) == value


@pytest.mark.parametrize("value", ["", "a b", "a\\b", 'a "b"', "a b\\c", "ä", "ä b", "a\tb"])
def test_details_can_be_parsed(value: str) -> None:
    line = as_text(entry(REFUSED._replace(detail=value)))
    shown = line.partition(" detail=")[2]
    assert (json.loads(shown) if shown.startswith('"') else shown) == value


@pytest.mark.parametrize("name", ["my list", 'a "b" reason=c', "ä", "ä b"])
def test_any_listener_name_can_be_parsed(name: str) -> None:
    shown = as_text(entry(listener=name)).partition(" listener=")[2].partition(" policy=")[0]
    assert (json.loads(shown) if shown.startswith('"') else shown) == name
    assert json.loads(as_json(entry(listener=name)))["listener"] == as_record(entry(listener=name)).listener == name


def test_letters_of_any_alphabet_are_not_quoted() -> None:
    assert " sender=müller recipient=" in as_text(entry(sender="müller"))


def test_a_greylisting_request_is_in_the_detail() -> None:
    asking = REFUSED._replace(detail="mailfrom none.net", greylist=True)
    assert as_text(entry(asking)).endswith(' detail="mailfrom none.net; asks for greylisting"')
    assert json.loads(as_json(entry(asking)))["detail"] == "mailfrom none.net; asks for greylisting"


def test_decisions_of_other_policies_end_the_line() -> None:
    found = entry(also="GRL:greylist_passed,OQP:within_quota")
    assert as_text(found).endswith(" stage=RCPT also=GRL:greylist_passed,OQP:within_quota")
    assert json.loads(as_json(found))["also"] == "GRL:greylist_passed,OQP:within_quota"


@given(st.text(max_size=400), st.text(max_size=400), st.booleans())
def test_a_record_and_the_json_line_have_the_same_values(sender: str, text: str, greylist: bool) -> None:
    made = REFUSED._replace(action=f"REJECT {text}", detail=text, greylist=greylist, shadow=text, source="cache")
    found = entry(made, also="GRL:greylist_passed", sender=sender, recipient=text, client_address="", user=text)
    record = as_record(found)
    assert record.as_dict() == json.loads(as_json(found))
    assert (record.sender, record.recipient, record.user) == tuple(each[:MAX_VALUE] for each in (sender, text, text))
    assert (record.time, record.action, record.figures) == (1763636645.123, made.action, REFUSED.figures)
