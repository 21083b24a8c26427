"""Inbound requests: recipient domain, normal addresses, client network."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from ipaddress import ip_network

from chapps_tw.mail.addresses import normal_domain, normal_name
from chapps_tw.mail.memo import Memoized
from chapps_tw.mail.network import client_address

# Size of the cache of clients, in bytes.
_CACHE_BYTES = 8 << 20

_MAX_UNREADABLE_ADDRESS = 64
_UNKNOWN = "unknown"

_UNPRINTABLE = re.compile(r"[^!-~]")


def domain_of(address: str) -> str:
    """Return the domain of a mail address as lower-case A-labels, ``""`` if it has none.

    The domain is what follows the last ``@``: Postfix sends addresses unquoted.
    """
    _, at, domain = address.rpartition("@")
    return normal_domain(domain) if at else ""


def mail_address(text: str) -> str:
    """Return an address in the form that greylisting compares and stores.

    Always in lower case, whatever ``fold_case``: an address whose case changes between two attempts is the same
    sender. Each VERP or BATV variation is a different sender. Bytes that are not UTF-8 are escaped, so that every
    store accepts them.
    """
    text = normal_name(text)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def client_network(text: str, ipv4_prefix: int, ipv6_prefix: int) -> str:
    """Return the network of a client address, such as ``192.0.2.0/24`` or ``2001:db8::/64``.

    :returns: for an invalid address, the text itself as printable ASCII, truncated.
    """
    address = client_address(text)
    if address is None:
        return _UNPRINTABLE.sub("?", text[:_MAX_UNREADABLE_ADDRESS].lower()) or _UNKNOWN
    prefix = ipv4_prefix if address.version == 4 else ipv6_prefix
    return str(ip_network((address, prefix), strict=False))


def cached_client_network(ipv4_prefix: int, ipv6_prefix: int) -> Callable[[str], str]:
    """Return :func:`client_network` for these prefixes, with a cache."""
    return Memoized(partial(client_network, ipv4_prefix=ipv4_prefix, ipv6_prefix=ipv6_prefix), _CACHE_BYTES).__getitem__
