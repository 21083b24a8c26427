"""Inbound requests: whom the mail is for, and who brings it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from ipaddress import ip_network

from chapps_tw.mail.addresses import normal_domain, normal_name
from chapps_tw.mail.memo import Memoized
from chapps_tw.mail.network import client_address

# Bytes for the clients that came before.
_CACHE_BYTES = 8 << 20

_MAX_UNREADABLE_ADDRESS = 64
_UNKNOWN = "unknown"

_UNPRINTABLE = re.compile(r"[^!-~]")


def domain_of(address: str) -> str:
    """The domain of a mail address as lower-case A-labels; ``""`` when there is none.

    It is what stands after the last ``@``: Postfix hands addresses over without their quotes.
    """
    _, at, domain = address.rpartition("@")
    return normal_domain(domain) if at else ""


def mail_address(text: str) -> str:
    """An address in the form that greylisting compares and stores.

    All of it is lower case, whatever ``fold_case``: a sender that changes the case of a local part between two
    attempts is the same sender. Every VERP or BATV variation is a sender of its own. Bytes that are no UTF-8
    become escapes, so that every store takes them.
    """
    text = normal_name(text)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def client_network(text: str, ipv4_prefix: int, ipv6_prefix: int) -> str:
    """The network that an address is in, as ``192.0.2.0/24`` or ``2001:db8::/64``.

    :returns: for what is no address, that text, in printable ASCII and shortened.
    """
    address = client_address(text)
    if address is None:
        return _UNPRINTABLE.sub("?", text[:_MAX_UNREADABLE_ADDRESS].lower()) or _UNKNOWN
    prefix = ipv4_prefix if address.version == 4 else ipv6_prefix
    return str(ip_network((address, prefix), strict=False))


def network_reader(ipv4_prefix: int, ipv6_prefix: int) -> Callable[[str], str]:
    """:func:`client_network` for these prefixes, which remembers the clients that came before."""
    return Memoized(partial(client_network, ipv4_prefix=ipv4_prefix, ipv6_prefix=ipv6_prefix), _CACHE_BYTES).__getitem__
