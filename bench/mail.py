"""Endless requests that vary as real mail does, the same in every run.

What varies: who sends and from where (a few do so often, most hardly ever), senders that name each recipient
(VERP), recipients and how many a message has, declared sizes, TLS, ports, instances, queue ids, and with all that the
length of the lines. Messages are drawn beforehand; an instance, a queue id and the recipients are new each time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import NamedTuple

from tests.support.policy_client import encode, inbound, outbound

GREYLISTED = "greylisted.example"
CHECKED = "checked.example"

# Messages that are drawn, and recipients: so many that hardly ever the two meet again.
MESSAGES = 4001
RECIPIENTS = 7919
MAILBOXES = 500

_WORDS = ("mail", "shop", "news", "cloud", "hosting", "university", "insurance", "it", "bank", "travel-agency")
_NAMES = ("ann", "bob", "carl.meyer", "d.nguyen", "info", "elisabeth.hoffmann-schulz", "no-reply", "f", "giovanni42")
_TLS = ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES256-GCM-SHA384")

# Domains that mail comes from, the one with the most mail first. All send from 10.0.0.0/8.
SENDERS = [f"{_WORDS[number % 10]}{number}.{_WORDS[number * 7 % 9]}.example" for number in range(300)]


class Message(NamedTuple):
    """A message that was drawn.

    :ivar request: with places for the number of the message (if the sender names it), recipient, queue id, instance.
    :ivar recipients: how many it has.
    :ivar names_number: whether the sender has the number in it.
    """

    request: bytes
    recipients: int
    names_number: bool = False


def user_name(number: int) -> str:
    return f"{_NAMES[number % 9]}.{number}@{user_domain(number)}"


def user_domain(number: int) -> str:
    """One of 20 domains that a thousand users share."""
    return f"customer{number // 1000 * 20 + number % 20}.example"


def outbound_mail(users: Sequence[int]) -> Iterator[bytes]:
    """Messages of several users in turn."""
    draw = Random(1)
    turns = itertools.cycle(draw.sample(users, len(users)))
    messages = [_sent_by(next(turns), draw) for _ in range(-(-MESSAGES // len(users)) * len(users))]
    return _requests(messages, [f"{_NAMES[number % 9]}.{number}@{_sender(draw)[0]}" for number in range(RECIPIENTS)])


def inbound_mail(domain: str) -> Iterator[bytes]:
    """Messages from many senders and networks to the mailboxes of one of our domains."""
    draw = Random(2)
    messages = [_received(draw) for _ in range(MESSAGES)]
    mailboxes = [f"{_NAMES[number % 9]}.{number}@{domain}" for number in range(MAILBOXES)]
    return _requests(messages, [mailboxes[_often_low(MAILBOXES, draw)] for _ in range(RECIPIENTS)])


def _often_low(end: int, draw: Random) -> int:
    """A number below ``end``; as in Zipf's law, each as often as it is low."""
    return int(end ** draw.random()) - 1


def _sender(draw: Random) -> tuple[str, int]:
    """A domain that mail comes from, and its number."""
    number = _often_low(len(SENDERS), draw)
    return SENDERS[number], number


def _sent_by(user: int, draw: Random) -> Message:
    host, port = f"client{draw.randrange(4)}.{user}.{user_domain(user)}", draw.randrange(1024, 65536)
    attributes = outbound(
        client_address=f"10.99.{user % 256}.{draw.randrange(1, 5)}",
        **_connection(host, port, draw),
        sasl_username=user_name(user),
        sender=f"{draw.choice(_NAMES)}.{user}@{user_domain(user)}",
    )
    return Message(_template(attributes), _recipients(draw))


def _received(draw: Random) -> Message:
    domain, number = _sender(draw)
    host = draw.randrange(max(2, 40 // (number + 1)))
    name = f"mx-out-{host}.{domain}"
    # A newsletter's sender names the message and its recipient, so that a bounce tells whom it is about.
    verp = draw.random() < 0.2
    local = f"bounce+%x-{draw.randrange(10**6)}=list" if verp else f"{draw.choice(_NAMES)}.{draw.randrange(40)}"
    attributes = inbound(
        client_address=f"10.{number % 250}.{number // 250 * 50 + host}.{draw.randrange(1, 9)}",
        **_connection(name, draw.randrange(1024, 65536), draw),
        sender=f"{local}@{domain}",
    )
    return Message(_template(attributes), _recipients(draw), verp)


def _connection(host: str, port: int, draw: Random) -> dict[str, str]:
    tls = draw.random() < 0.9
    return {
        "client_name": host,
        "reverse_client_name": host,
        "helo_name": host,
        "client_port": str(port),
        "size": str(int(2000 * 10 ** (draw.random() * 4))) if draw.random() < 0.8 else "0",
        "encryption_protocol": "TLSv1.3" if tls else "",
        "encryption_cipher": draw.choice(_TLS) if tls else "",
        "encryption_keysize": "256" if tls else "0",
    }


def _template(attributes: dict[str, str]) -> bytes:
    return encode({**attributes, "recipient": "%b", "queue_id": "%b", "instance": "%x.6b%06x.%x.0"})


def _recipients(draw: Random) -> int:
    return 1 if draw.random() < 0.75 else draw.randrange(2, 6)


def _requests(messages: Sequence[Message], recipients: Sequence[str]) -> Iterator[bytes]:
    """Each message in turn, once for each of its recipients; it has a queue id from the second on, as in Postfix."""
    next_recipient: Callable[[], bytes] = itertools.cycle([each.encode() for each in recipients]).__next__
    for number, message in enumerate(itertools.cycle(messages), 1):
        instance = (0x2000 + number % 100, number // 100, number * 7919 % 1_000_000)
        sender = (number,) if message.names_number else ()
        for place in range(message.recipients):
            queue_id = b"%X" % (number << 20 | 0xD24E0) if place else b""
            yield message.request % (*sender, next_recipient(), queue_id, *instance)
