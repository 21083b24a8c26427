"""The values of exemptions: how they are checked, and their normal forms."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from chapps_tw.mail.addresses import normal_domain
from chapps_tw.mail.network import client_address
from chapps_tw.rest.fields import entered_email

SCOPE: Final = r"(spf|greylisting|sender_authorization|limit:[A-Za-z0-9][A-Za-z0-9_.-]{0,63})"

_CLIENT = "must be an IPv4 or IPv6 address or network, such as 192.0.2.0/24 or 2001:db8::/32"
_MAPPED_BITS = 96


def checked_scope(text: str) -> str:
    """Return the scope of an exemption.

    :raises ValueError: with the accepted forms.
    """
    if not re.fullmatch(SCOPE, text):
        raise ValueError(
            "must be spf, greylisting, sender_authorization, or limit:NAME with the name of a [Limit NAME]"
        )
    return text


def normal_value(kind: str, text: str) -> str:
    """Return the normal form of what is exempt. The book may fold the letter case of local parts.

    :param kind: as of an :class:`~chapps_tw.interfaces.book.Exemption`.
    :raises ValueError: with the remedy.
    """
    return _FORMS[kind](text)


def _client(text: str) -> str:
    # As in Postfix' mynetworks.
    bare = re.sub(r"^\[([^]]*)\]", r"\1", text)
    if "/" in bare:
        return _network(bare)
    address = client_address(bare)
    if address is None:
        raise ValueError(_CLIENT)
    return str(address)


def _network(text: str) -> str:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(_CLIENT) from None
    host, _, _ = text.partition("/")
    if client_address(host) != client_address(str(network.network_address)):
        raise ValueError(f"has bits set after its prefix: use {network} for the network, or {host} for the address")
    network = _unmapped(network)
    # One form for a single address.
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """Return IPv4-mapped addresses (RFC 4291, section 2.5.5.2) as IPv4: Postfix reports such clients as IPv4."""
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def _email(text: str) -> str:
    address = entered_email(text)
    if not address:
        raise ValueError("must be a mail address, such as news@example.com")
    return address


def _domain(text: str) -> str:
    name = normal_domain(text.removeprefix("."))
    if not name:
        raise ValueError("must be a domain, such as example.com, or .example.com with its subdomains")
    return "." + name if text.startswith(".") else name


_FORMS: dict[str, Callable[[str], str]] = {
    "client": _client,
    "sender": _email,
    "sender_domain": _domain,
    "recipient": _email,
}
