"""What the benchmark asks: the same in every run, and as varied as mail is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from bench.mail import CHECKED, inbound_mail, outbound_mail, user_domain
from chapps_tw.mail.request import PolicyRequest

# Attributes that have many values.
MANY = ("client_address", "client_name", "client_port", "helo_name", "sender", "recipient", "queue_id", "size")

Mail = Callable[[], Iterator[bytes]]


def inbound() -> Iterator[bytes]:
    return inbound_mail(CHECKED)


def outbound() -> Iterator[bytes]:
    return outbound_mail(range(100))


def requests(mail: Mail, count: int) -> list[PolicyRequest]:
    return [PolicyRequest(each) for each in islice(mail(), count)]


@pytest.mark.parametrize("mail", [inbound, outbound])
def test_every_run_asks_the_same(mail: Mail) -> None:
    assert list(islice(mail(), 500)) == list(islice(mail(), 500))


@pytest.mark.parametrize("mail", [inbound, outbound])
def test_requests_vary_as_those_of_mail_do(mail: Mail) -> None:
    asked = requests(mail, 20_000)
    for name in MANY:
        assert len({request.get(name) for request in asked}) > 300, name
    instances = {request.get("instance") for request in asked}
    assert len(asked) / 3 < len(instances) < len(asked)
    assert len({len(str(request.attributes)) for request in asked}) > 50


@pytest.mark.parametrize("mail", [inbound, outbound])
def test_a_message_has_a_queue_id_from_its_second_recipient_on(mail: Mail) -> None:
    met: set[str | None] = set()
    for request in requests(mail, 2_000):
        assert bool(request.queue_id) is (request.instance in met)
        met.add(request.instance)


def test_a_few_send_often_and_most_hardly_ever() -> None:
    senders = [request.get("sender").rpartition("@")[2] for request in requests(inbound, 20_000)]
    often = sorted((senders.count(each) for each in set(senders)), reverse=True)
    assert sum(often[:10]) > len(senders) / 4 > sum(often[100:])


def test_users_send_about_as_much_as_each_other_from_domains_of_their_own() -> None:
    asked = requests(outbound, 20_000)
    counts = [request.sasl_username for request in asked]
    assert all(100 < counts.count(user) < 300 for user in set(counts)) and len(set(counts)) == 100
    domains = {user_domain(number) for number in range(100)}
    assert all(request.get("sender").rpartition("@")[2] in domains for request in asked)
