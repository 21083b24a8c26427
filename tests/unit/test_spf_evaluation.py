"""Evaluation of SPF records, with DNS answers given by the test."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chapps_tw.dns.messages import DnsFailure
from chapps_tw.mail.received_spf import SpfResult
from chapps_tw.spf.evaluation import Evaluation, Identity, Question, Rules

RULES = Rules(time.time)
DOMAIN = "a.example"


def evaluate(
    text: bytes, client: str = "192.0.2.1", answers: Mapping[Question, Any] | None = None, local: str = "alice"
) -> tuple[SpfResult, list[Question]]:
    """Return the result of a record, and the questions asked. Names without an answer have no records."""
    evaluation = Evaluation(Identity(client, "mailfrom", local, DOMAIN, "mail.example"), RULES, time.thread_time)
    known = {(DOMAIN, "TXT"): ((text,),)} | dict(answers or {})
    asked: list[Question] = []
    outcome = evaluation.step()
    while not isinstance(outcome, SpfResult):
        asked.append(outcome)
        outcome = evaluation.step(outcome, known.get(outcome, ()))
    return outcome, asked


PIECES = re.findall(
    r"\S+",
    "+ - ~ ? all include a mx ptr exists ip4 ip6 redirect exp = : / // 0 24 33 128 129 999 . .. %% %_ %- %{d} %{P} "
    "%{l1r-} %{s0} %{i} %{c} %{ %} example a.example 192.0.2.1 2001:db8:: ::1 ::ffff:1.2.3.4 , @ \0",
)
TERMS = st.one_of(
    st.text(st.characters(codec="latin-1"), max_size=30),
    st.builds("".join, st.lists(st.sampled_from(PIECES), max_size=8)),
)


@given(st.lists(TERMS, max_size=6), st.sampled_from(["192.0.2.1", "2001:db8::1"]), st.text(max_size=80))
def test_any_record_has_a_result(terms: list[str], client: str, local: str) -> None:
    text = " ".join(["v=spf1", *terms]).encode("latin-1")
    found, asked = evaluate(text, client, local=local)
    assert found.result in {"pass", "fail", "softfail", "neutral", "permerror", "temperror"}
    assert len(asked) < 40


def test_a_question_is_asked_only_once() -> None:
    _, asked = evaluate(b"v=spf1 a a:%{d} mx ptr exists:%{p}.x.example -all exp=%{p}.example")
    assert len(asked) == len(set(asked))


def test_a_client_name_in_the_domain_is_preferred() -> None:
    names = ("other.example", "mail.a.example", "a.example", "more.a.example")
    for known, wanted in (
        (names, "a.example"),
        (names[:2], "mail.a.example"),
        (names[:1], "other.example"),
        ((), "unknown"),
    ):
        answers: dict[Question, Any] = {("1.2.0.192.in-addr.arpa", "PTR"): names}
        answers |= {(name, "A"): ("192.0.2.1",) for name in known}
        answers[f"{wanted}.m.example", "A"] = ("127.0.0.2",)
        assert evaluate(b"v=spf1 exists:%{p}.m.example -all", answers=answers)[0].result == "pass", wanted


def test_ipv6_addresses_are_expanded_nibble_by_nibble() -> None:
    reverse = ".".join("20010db8000000000000000000000001")
    found, asked = evaluate(b"v=spf1 a:%{i}.%{v}.m.example ip6:2001:db8::/32 -all", "2001:db8::1")
    assert (found.result, asked[1:]) == ("pass", [(f"{reverse}.ip6.m.example", "AAAA")])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"v=spf1 moo", "Unknown mechanism found: moo"),
        (b"v=spf1 a:b.example \xe4", "SPF record with non-ASCII characters"),
        (b"v=spf1 a:" + b"x" * 600, "SPF term of more than 512 octets"),
        (b"v=spf1 a:b\tc.example", "SPF term with a control character: a:b c.example"),
        (b"v=spf1 redirect=b.example redirect=b.example", "duplicate redirect="),
        (b"v=spf1 exp=", "exp= without a domain"),
        (b"v=spf1 a:%{c}.example", "%{c} is allowed in an explanation only"),
        (b"v=spf1 a:%{d0}.example", "%{d0} selects zero labels"),
        (b"v=spf1 a:%x.example", "unknown macro in %x.example"),
        (b"v=spf1 a:nowhere", "not a domain name: nowhere"),
        (b"v=spf1 include:b.example", "include of b.example, which has no SPF record"),
        (b"v=spf1 redirect=b.example", "redirect to b.example, which has no SPF record"),
    ],
)
def test_a_permerror_gives_the_reason(text: bytes, problem: str) -> None:
    found, _ = evaluate(text)
    assert (found.result, found.problem) == ("permerror", problem)


def test_a_dns_failure_names_the_question_in_printable_ascii() -> None:
    failure = {("a\tb.m.example", "A"): DnsFailure("no answer", "192.0.2.53:53 did not answer")}
    found, _ = evaluate(b"v=spf1 exists:%{l}.m.example -all", answers=failure, local="a\tb")
    assert found == SpfResult(
        "temperror",
        domain=DOMAIN,
        problem=r"A of a\tb.m.example: no answer",
        asked="192.0.2.53:53 did not answer",
    )
