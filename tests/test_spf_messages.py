"""DNS messages: what dnspython writes is read as it is, and nothing that anybody writes is an accident."""

from __future__ import annotations

import contextlib

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chapps_tw.spf_messages import (
    FAILURE_TTL,
    MAX_EXPLANATION,
    MAX_RECORD,
    MAX_TTL,
    Answer,
    Damaged,
    DnsFailure,
    Found,
    Reply,
    is_reply,
    query,
    question_of,
    read,
    text_of,
)
from tests.servers.dns import addresses, record, txt

NAME = "a.example"
QUESTION = question_of(NAME, "TXT")


def response(rdtype: str, *rrsets: tuple[str, list[dns.rdata.Rdata]], ttl: int = 300) -> dns.message.Message:
    """An answer to a question for NAME that holds some records, each set with its name."""
    made = dns.message.make_response(dns.message.from_wire(query(7, question_of(NAME, rdtype), edns=True)))
    for name, records in rrsets:
        made.answer.append(dns.rrset.from_rdata_list(dns.name.from_text(name), ttl, records))
    return made


def reply(message: dns.message.Message, rdtype: str = "TXT") -> Reply:
    wire, question = message.to_wire(max_size=65535), question_of(NAME, rdtype)
    assert is_reply(wire, 7, question)
    return read(wire, question)


def found(rdtype: str, *rrsets: tuple[str, list[dns.rdata.Rdata]], ttl: int = 300) -> Found:
    result = reply(response(rdtype, *rrsets, ttl=ttl), rdtype).found
    assert result is not None
    return result


def answer(rdtype: str, *records: dns.rdata.Rdata) -> Answer:
    result = found(rdtype, (NAME, list(records))).answer
    assert isinstance(result, tuple)
    return result


def test_a_question_is_what_dnspython_writes() -> None:
    ours = dns.message.from_wire(query(7, question_of("Mail.Example", "MX"), edns=True))
    theirs = dns.message.make_query("mail.example", "MX", use_edns=0, payload=1232, id=7)
    assert ours == theirs
    assert (ours.id, ours.edns, ours.payload, ours.flags) == (7, 0, 1232, dns.flags.RD)
    assert dns.message.from_wire(query(7, QUESTION, edns=False)).edns == -1


@pytest.mark.parametrize("name", ["", "a..example", "." + NAME, "a" * 64 + ".example", ".".join(["a" * 60] * 5)])
def test_what_is_no_name_cannot_be_asked_for(name: str) -> None:
    with pytest.raises(ValueError):
        question_of(name, "A")


def test_every_type_of_record_is_read() -> None:
    assert set(answer("A", *addresses("192.0.2.1", "192.0.2.2"))) == {"192.0.2.1", "192.0.2.2"}
    assert answer("AAAA", *addresses("2001:db8::1")) == ("2001:db8::1",)
    assert answer("MX", record("MX", "5 Mx.a.example.")) == ((5, "mx.a.example"),)
    assert answer("MX", record("MX", "0 .")) == ((0, ""),)
    assert answer("PTR", record("PTR", "mail.a.example.")) == ("mail.a.example",)
    assert answer("TXT", txt("v=spf1 ", "", "-all")) == ((b"v=spf1 -all",),)
    assert answer("TXT", txt("")) == ((b"",),)


def test_a_name_that_text_would_make_another_is_none() -> None:
    assert answer("PTR", record("PTR", r"a\.example.org.")) == ("",)
    assert answer("PTR", record("PTR", r"a\000.example.org.")) == ("",)


def test_aliases_are_followed_and_the_shortest_time_counts() -> None:
    made = response("A", (NAME, [record("CNAME", "B.example.")]), ("c.example", addresses("192.0.2.1")))
    made.answer.append(dns.rrset.from_text("b.example.", 20, "IN", "CNAME", "c.example."))
    assert reply(made, "A").found == Found(("192.0.2.1",), 20)


def test_aliases_in_a_circle_are_a_failure() -> None:
    result = found("A", (NAME, [record("CNAME", "b.example.")]), ("b.example", [record("CNAME", f"{NAME}.")]))
    assert isinstance(result.answer, DnsFailure)
    assert result.ttl == FAILURE_TTL


def test_what_is_not_there_is_remembered_as_long_as_its_zone_says() -> None:
    assert found("A") == Found((), FAILURE_TTL)
    made = response("A")
    made.authority.append(dns.rrset.from_text("example.", 600, "IN", "SOA", "ns. root. 1 2 3 4 90"))
    assert reply(made, "A").found == Found((), 90)
    made.set_rcode(dns.rcode.NXDOMAIN)
    assert reply(made, "A").found == Found((), 90)


def test_no_time_to_live_is_longer_than_a_day_or_below_nothing() -> None:
    assert found("A", (NAME, addresses("192.0.2.1")), ttl=2**31 - 1).ttl == MAX_TTL
    wire = response("A", (NAME, addresses("192.0.2.1")), ttl=0x01020304).to_wire()
    forever = wire.replace(b"\x01\x02\x03\x04", b"\xff\xff\xff\xff", 1)
    assert read(forever, question_of(NAME, "A")) == Reply(0, found=Found(("192.0.2.1",), 0))


def test_errors_are_of_no_use_whatever_they_hold() -> None:
    made = response("TXT", (NAME, [txt("v=spf1 +all")]))
    for status in (dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NXDOMAIN, dns.rcode.BADVERS):
        made.set_rcode(status)
        assert reply(made) == Reply(int(status))
    made.set_rcode(dns.rcode.NOERROR)
    made.flags |= dns.flags.TC
    assert reply(made) == Reply(0, truncated=True)


def test_of_text_is_kept_what_can_make_a_difference() -> None:
    records = [txt(f"other {n}") for n in range(50)] + [txt(f"v=spf1 ip4:192.0.2.{n} -all") for n in range(50)]
    texts = list(map(text_of, answer("TXT", *records)))
    assert [len(texts), sum(text.startswith(b"v=spf1") for text in texts)] == [4, 2]
    assert answer("TXT", *[txt(*[start, *["x" * 250] * 40]) for start in ("v=spf1 ", "")]) == (
        ((b"v=spf1 " + b"x" * 10000)[: MAX_RECORD + 1],),
        (b"x" * (MAX_EXPLANATION + 1),),
    )


def test_of_names_is_kept_what_the_limits_of_spf_let_count() -> None:
    assert len(answer("MX", *[record("MX", f"{n} m{n}.example.") for n in range(50)])) == 11
    assert len(answer("PTR", *[record("PTR", f"m{n}.example.") for n in range(50)])) == 11


@pytest.mark.parametrize(
    "records", [[txt(*[""] * 1100)], addresses(*[f"10.0.{n // 250}.{n % 250}" for n in range(300)])]
)
def test_more_than_can_be_meant_is_not_read(records: list[dns.rdata.Rdata]) -> None:
    with pytest.raises(Damaged):
        reply(response("TXT", (NAME, records)))


@pytest.mark.parametrize("pointers", [b"\xc0\x1b", b"\xc0\x1d\xc0\x1b", b"\xff\xff", b"\x40", b"\x3fabc"])
def test_a_name_that_does_not_end_is_an_error(pointers: bytes) -> None:
    head = response("TXT").to_wire()[: 12 + len(QUESTION)]
    with pytest.raises(Damaged):
        read(head[:6] + b"\0\1\0\0\0\0" + head[12:] + pointers + bytes(10), QUESTION)


def test_only_an_answer_to_this_question_is_one() -> None:
    made = response("TXT", (NAME, [txt("v=spf1 -all")]))
    wire = made.to_wire()
    assert is_reply(wire, 7, QUESTION)
    assert not is_reply(wire, 8, QUESTION)
    assert not is_reply(wire, 7, question_of("b.example", "TXT"))
    assert not is_reply(wire, 7, question_of(NAME, "A"))
    assert not is_reply(query(7, QUESTION, edns=True), 7, QUESTION)
    assert not is_reply(wire[:11], 7, QUESTION)
    made.question.clear()
    assert not is_reply(made.to_wire(), 7, QUESTION)
    made.set_rcode(dns.rcode.FORMERR)
    assert is_reply(made.to_wire(), 7, QUESTION)


WIRES = [
    (rdtype, response(rdtype, (NAME, [record("CNAME", "b.example.")]), ("b.example", records)).to_wire())
    for rdtype, records in {
        "A": addresses("192.0.2.1", "192.0.2.2"),
        "AAAA": addresses("2001:db8::1"),
        "MX": [record("MX", "5 mx.b.example."), record("MX", "6 b.example.")],
        "PTR": [record("PTR", "c.b.example.")],
        "TXT": [txt("v=spf1 ", "-all"), txt("other")],
    }.items()
]


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(WIRES), st.data())
def test_whatever_is_received_is_an_answer_or_damaged(case: tuple[str, bytes], data: st.DataObject) -> None:
    rdtype, wire = case
    question = question_of(NAME, rdtype)
    changed = bytearray(wire)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(2, len(wire) - 1))] = data.draw(st.integers(0, 255))
    received = bytes(changed[: data.draw(st.integers(0, len(wire)))]) if data.draw(st.booleans()) else bytes(changed)
    if is_reply(received, 7, question):
        with contextlib.suppress(Damaged):
            assert isinstance(read(received, question), Reply)
