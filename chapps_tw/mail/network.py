"""Network addresses of clients and servers, as Postfix and the configuration write them."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from chapps_tw.mail.addresses import normal_domain

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_DNS_PORT = 53
_SERVER = re.compile(r"\[(?P<v6>[^]]+)\](?::(?P<p6>\d{1,5}))?|(?P<v4>[^:]+)(?::(?P<p4>\d{1,5}))?|(?P<bare>.+)")
_ENTRY = re.compile(r"(?P<name>[^:\[\]\s]+)\s*(?::\s*(?:\[(?P<v6>[^]]*)\]|(?P<v4>[^\[\]:]*)))?")


def client_address(text: str) -> Address | None:
    """Parse a client address from Postfix: IPv4-mapped becomes IPv4, a zone is removed; ``None`` for ``unknown``."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def parse_networks(text: str) -> tuple[Network, ...]:
    """Parse ``network ...``, each an address or ``address/bits``.

    :raises ValueError: with the expected form, worded to follow "must be".
    """
    return tuple(_network(part) for part in text.replace(",", " ").split())


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"addresses, or networks such as 192.0.2.0/24 and 2001:db8::/32 ({error})") from None


class Server(NamedTuple):
    """Address and port of a name server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_nameservers(text: str) -> tuple[Server, ...]:
    """Parse ``address[:port] ...``. An IPv6 address with a port needs brackets.

    :raises ValueError: with the expected form, worded to follow "must be".
    """
    return tuple(_server(part) for part in text.replace(",", " ").split())


def _server(text: str) -> Server:
    match = _SERVER.fullmatch(text)
    if match:
        host = match["v6"] or match["v4"] or match["bare"]
        port = int(match["p6"] or match["p4"] or _DNS_PORT)
        try:
            ip_address(host)
        except ValueError:
            port = 0
        if 0 < port < 65536:
            return Server(host, port)
    raise ValueError(f"address[:port] ..., an IPv6 address with a port in brackets, not {text!r}")


def parse_host_name(text: str) -> str:
    """Return a host name as lower-case A-labels; ``""`` for an empty text.

    :raises ValueError: with the expected form, worded to follow "must be".
    """
    name = normal_domain(text)
    if text and not name:
        raise ValueError("a host name, such as mx.example.org")
    return name


class HeloEntry(NamedTuple):
    """A HELO name as A-labels, and the only address that may use it; ``None`` is any address of the name."""

    name: str
    address: Address | None

    def __str__(self) -> str:
        if self.address is None:
            return self.name
        return f"{self.name}:[{self.address}]" if self.address.version == 6 else f"{self.name}:{self.address}"

    @property
    def wanted(self) -> str:
        """The DNS records that the entry needs, in words; ``""`` if none are looked up."""
        if self.address is None:
            address = "an address record (A or AAAA)"
        elif self.address.is_loopback:
            return ""
        else:
            address = f"the {'A' if self.address.version == 4 else 'AAAA'} record {self.address}"
        return f"{address}, and a PTR record of that address for {self.name}"


def parse_helo_whitelist(text: str) -> tuple[HeloEntry, ...]:
    """Parse ``name[:address][;name...]``, IPv6 addresses in brackets.

    :raises ValueError: with the expected form, worded to follow "must be".
    """
    return tuple(_entry(part.strip()) for part in text.split(";") if part.strip())


def _entry(text: str) -> HeloEntry:
    match = _ENTRY.fullmatch(text)
    name = normal_domain(match["name"]) if match else ""
    if match and name:
        literal = match["v4"] if match["v6"] is None else match["v6"]
        if literal is None:
            return HeloEntry(name, None)
        try:
            address = ip_address(literal.strip())
        except ValueError:
            pass
        else:
            if (address.version == 6) == (match["v6"] is not None):
                return HeloEntry(name, client_address(str(address)))
    raise ValueError(f"name[:address][;name...], IPv6 addresses in brackets, not {text!r}")
