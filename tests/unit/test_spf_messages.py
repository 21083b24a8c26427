"""DNS messages: responses are parsed as SPF needs them, and no input causes an unexpected error."""

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

from chapps_tw.dns.messages import (
    FAILURE_TTL,
    MAX_EXPLANATION,
    MAX_TTL,
    Answer,
    DnsFailure,
    MalformedResponse,
    MismatchedResponse,
    Response,
    Result,
    make_query,
    make_question,
    may_answer,
    parse,
    text_of,
)
from tests.support.examples import examples
from tests.support.servers.dns import EMPTY, addresses, record, txt

NAME = "a.example"
QUERIES = {rdtype: make_query(make_question(NAME, rdtype), edns=True) for rdtype in ("A", "AAAA", "MX", "PTR", "TXT")}


def response(rdtype: str, *rrsets: tuple[str, list[dns.rdata.Rdata]], ttl: int = 300) -> dns.message.Message:
    """A response to a question for NAME with some records, each set with its name."""
    made = dns.message.make_response(dns.message.from_wire(QUERIES[rdtype].wire))
    for name, records in rrsets:
        made.answer.append(dns.rrset.from_rdata_list(dns.name.from_text(name), ttl, records))
    return made


def reply(message: dns.message.Message, rdtype: str = "TXT") -> Response:
    wire = message.to_wire(max_size=65535)
    assert may_answer(wire, QUERIES[rdtype])
    return parse(wire, QUERIES[rdtype])


def found(rdtype: str, *rrsets: tuple[str, list[dns.rdata.Rdata]], ttl: int = 300) -> Result:
    result = reply(response(rdtype, *rrsets, ttl=ttl), rdtype).result
    assert result is not None
    return result


def answer(rdtype: str, *records: dns.rdata.Rdata) -> Answer:
    result = found(rdtype, (NAME, list(records))).answer
    assert isinstance(result, tuple)
    return result


def test_queries_have_random_ids_with_or_without_edns() -> None:
    question = make_question("Mail.Example", "MX")
    sent = [dns.message.from_wire(make_query(question, edns).wire) for edns in (True, False)]
    assert [(each.edns, each.flags) for each in sent] == [(0, dns.flags.RD), (-1, dns.flags.RD)]
    assert sent[0].payload == 1232
    assert [each.question[0].to_text() for each in sent] == ["mail.example. IN MX"] * 2
    assert len({make_query(question, edns=True).wire[:2] for _ in range(20)}) > 10


@pytest.mark.parametrize("name", ["", "a..example", "." + NAME, "a" * 64 + ".example", ".".join(["a" * 60] * 5)])
def test_an_invalid_name_is_rejected(name: str) -> None:
    with pytest.raises(ValueError):
        make_question(name, "A")


def test_every_record_type_is_parsed() -> None:
    assert set(answer("A", *addresses("192.0.2.1", "192.0.2.2"))) == {"192.0.2.1", "192.0.2.2"}
    assert answer("AAAA", *addresses("2001:db8::1")) == ("2001:db8::1",)
    assert answer("MX", record("MX", "5 Mx.a.example.")) == ((5, "mx.a.example"),)
    assert answer("MX", record("MX", "0 .")) == ((0, ""),)
    assert answer("PTR", record("PTR", "mail.a.example.")) == ("mail.a.example",)
    assert answer("TXT", txt("v=spf1 ", "", "-all")) == ((b"v=spf1 -all",),)
    assert answer("TXT", txt("")) == ((b"",),)


def test_a_name_with_an_ambiguous_text_form_is_empty() -> None:
    assert answer("PTR", record("PTR", r"a\.example.org.")) == ("",)
    assert answer("PTR", record("PTR", r"a\200.example.org.")) == ("",)
    assert answer("PTR", record("PTR", r"a\032B\000.example.org.")) == ("a b\0.example.org",)


def test_cname_chains_are_followed_and_the_lowest_ttl_applies() -> None:
    made = response("A", (NAME, [record("CNAME", "B.example.")]), ("c.example", addresses("192.0.2.1")))
    made.answer.append(dns.rrset.from_text("b.example.", 20, "IN", "CNAME", "c.example."))
    assert reply(made, "A").result == Result(("192.0.2.1",), 20)


def test_a_circular_cname_chain_is_a_failure() -> None:
    result = found("A", (NAME, [record("CNAME", "b.example.")]), ("b.example", [record("CNAME", f"{NAME}.")]))
    assert isinstance(result.answer, DnsFailure)
    assert result.ttl == FAILURE_TTL


def test_negative_answers_have_the_ttl_of_the_soa_record() -> None:
    assert found("A") == Result((), FAILURE_TTL)
    made = response("A")
    made.authority.append(dns.rrset.from_text("example.", 600, "IN", "SOA", "ns. root. 1 2 3 4 90"))
    assert reply(made, "A").result == Result((), 90)
    made.set_rcode(dns.rcode.NXDOMAIN)
    assert reply(made, "A").result == Result((), 90)


def test_a_ttl_is_between_zero_and_a_day() -> None:
    assert found("A", (NAME, addresses("192.0.2.1")), ttl=2**31 - 1).ttl == MAX_TTL
    wire = response("A", (NAME, addresses("192.0.2.1")), ttl=0x01020304).to_wire()
    forever = wire.replace(b"\x01\x02\x03\x04", b"\xff\xff\xff\xff", 1)
    assert parse(forever, QUERIES["A"]) == Response(0, result=Result(("192.0.2.1",), 0))


def test_error_responses_have_no_result() -> None:
    made = response("TXT", (NAME, [txt("v=spf1 +all")]))
    for status in (dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NXDOMAIN, dns.rcode.BADVERS):
        made.set_rcode(status)
        assert reply(made) == Response(int(status))
    made.set_rcode(dns.rcode.NOERROR)
    made.flags |= dns.flags.TC
    assert reply(made) == Response(0, truncated=True)


def test_a_truncated_response_may_end_anywhere() -> None:
    made = response("TXT", (NAME, [txt("v=spf1 +all")]))
    made.flags |= dns.flags.TC
    wire = made.to_wire()
    for end in range(wire.index(b"v=spf1"), len(wire) + 1):
        assert parse(wire[:end], QUERIES["TXT"]) == Response(0, truncated=True)
    with pytest.raises(MalformedResponse):
        parse(wire[:14], QUERIES["TXT"])


def test_malformed_records_are_skipped_unless_there_are_no_others() -> None:
    assert answer("TXT", EMPTY, txt("v=spf1 -all"), EMPTY) == ((b"v=spf1 -all",),)
    with pytest.raises(MalformedResponse, match="no readable record"):
        answer("TXT", EMPTY)
    made = response("TXT", (NAME, [txt("v=spf1 -all")]), (NAME, [txt("v=spf1 +all")]))
    with pytest.raises(MalformedResponse, match="incomplete message"):
        parse(made.to_wire()[:-20], QUERIES["TXT"])


def test_only_txt_records_that_matter_are_kept() -> None:
    records = [txt(f"other {n}") for n in range(50)] + [txt(f"v=spf1 ip4:192.0.2.{n} -all") for n in range(50)]
    texts = list(map(text_of, answer("TXT", *records)))
    assert [len(texts), sum(text.startswith(b"v=spf1") for text in texts)] == [4, 2]
    assert answer("TXT", *[txt(*[start, *["x" * 250] * 40]) for start in ("v=spf1 ", "")]) == (
        (b"v=spf1 " + b"x" * 10000,),
        (b"x" * (MAX_EXPLANATION + 1),),
    )


def test_no_more_names_are_kept_than_spf_allows() -> None:
    assert len(answer("MX", *[record("MX", f"{n} m{n}.example.") for n in range(50)])) == 11
    assert len(answer("PTR", *[record("PTR", f"m{n}.example.") for n in range(50)])) == 11


def test_a_response_with_too_many_records_is_rejected() -> None:
    wire = response("A", (NAME, addresses(*[f"10.0.0.{n}" for n in range(10)]))).to_wire()
    assert parse(wire, QUERIES["A"], 11).result
    with pytest.raises(MalformedResponse, match="sent 11 records, the limit is 10"):
        parse(wire, QUERIES["A"], 10)


@pytest.mark.parametrize("pointers", [b"\xc0\x1b", b"\xc0\x1d\xc0\x1b", b"\xff\xff", b"\x40", b"\x3fabc"])
def test_an_unterminated_name_is_an_error(pointers: bytes) -> None:
    head = response("TXT").to_wire()
    head = head[: head.index(b"\0\0\x10\0\1") + 5]
    with pytest.raises(MalformedResponse):
        parse(head[:6] + b"\0\1\0\0\0\0" + head[12:] + pointers + bytes(10), QUERIES["TXT"])


def test_a_response_must_match_id_and_question() -> None:
    made = response("TXT", (NAME, [txt("v=spf1 -all")]))
    wire, asked = made.to_wire(), QUERIES["TXT"]
    assert may_answer(wire, asked)
    assert not may_answer(bytes((wire[0] ^ 1,)) + wire[1:], asked)
    assert not may_answer(asked.wire, asked)
    assert not may_answer(wire[:11], asked)
    for name, rdtype in (("b.example", "TXT"), (NAME, "A")):
        other = make_query(make_question(name, rdtype), edns=True)
        with pytest.raises(MismatchedResponse):
            parse(other.wire[:2] + wire[2:], other)
    made.question.clear()
    with pytest.raises(MismatchedResponse):
        parse(made.to_wire(), asked)
    made.set_rcode(dns.rcode.FORMERR)
    assert parse(made.to_wire(), asked) == Response(int(dns.rcode.FORMERR))


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


@settings(max_examples=examples(500), deadline=None)
@given(st.sampled_from(WIRES), st.data())
def test_any_bytes_are_parsed_or_rejected(case: tuple[str, bytes], data: st.DataObject) -> None:
    rdtype, wire = case
    asked = QUERIES[rdtype]
    changed = bytearray(wire)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(2, len(wire) - 1))] = data.draw(st.integers(0, 255))
    received = bytes(changed[: data.draw(st.integers(0, len(wire)))]) if data.draw(st.booleans()) else bytes(changed)
    if may_answer(received, asked):
        with contextlib.suppress(MismatchedResponse, MalformedResponse):
            assert isinstance(parse(received, asked), Response)
