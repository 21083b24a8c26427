"""Endless different requests, made from templates as cheaply as can be."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from tests.support.policy_client import encode, inbound, outbound

GREYLISTED = "greylisted.example"
CHECKED = "checked.example"

# Domains that mail comes from, and networks of 256 addresses that it comes from, all under 10.0.0.0/8.
SENDERS = [f"sender{number}.example" for number in range(40)]
NETWORKS = 10

_numbers = itertools.count(1)


def user_name(number: int) -> str:
    return f"user{number}@{user_domain(number)}"


def user_domain(number: int) -> str:
    return f"customer{number % 20}.example"


def outbound_mail(users: Sequence[int]) -> Iterator[bytes]:
    """Messages of several users in turn, each to three recipients."""
    templates = [
        encode(
            outbound(
                sasl_username=user_name(user),
                sender=f"someone.{user}@{user_domain(user)}",
                recipient="recipient.%d@example.net",
                instance="4b1d.%x.3c2f.0",
            )
        )
        for user in users
    ]
    return _messages(templates, 3)


def inbound_mail(domain: str) -> Iterator[bytes]:
    """Messages from many senders and networks, each to two recipients in one of our domains."""
    templates = [
        encode(
            inbound(
                client_address=f"10.{network}.{number}.7",
                sender=f"news@{sender}",
                recipient=f"recipient.%d@{domain}",
                instance="4b1d.%x.3c2f.0",
            )
        )
        for network in range(NETWORKS)
        for number, sender in enumerate(SENDERS)
    ]
    return _messages(templates, 2)


def _messages(templates: Sequence[bytes], recipients: int) -> Iterator[bytes]:
    """Each template in turn, once for each recipient of a new message."""
    for template in itertools.cycle(templates):
        message = next(_numbers)
        for recipient in range(recipients):
            yield template % (message * recipients + recipient, message)
