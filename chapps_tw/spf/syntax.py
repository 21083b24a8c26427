"""The syntax of SPF records (RFC 7208, sections 4.6, 5, 6 and 12). pyspf reads the mechanisms."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

import spf

from chapps_tw.spf.macros import MacroSyntaxError, check_macros

# Octets of one term. pyspf takes a time that grows with the square of them.
MAX_TERM = 512

_VISIBLE = re.compile(r"[!-~]*")
_MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*)=(.*)", re.IGNORECASE)

# What a mechanism without a domain is about.
_CURRENT_DOMAIN = "%{d}"


class PermError(Exception):
    """The domain's records are wrong (RFC 7208, section 2.6.7). Says what is, in one line."""


class Directive(NamedTuple):
    """A mechanism with its qualifier.

    :ivar text: as it is written.
    :ivar result: of a match: ``pass fail softfail neutral``.
    :ivar name: ``all include a mx ptr exists ip4 ip6``.
    :ivar domain: macros and all.
    :ivar prefix: length, for the client's kind of address.
    :ivar network: of ``ip4`` and ``ip6``.
    """

    text: str
    result: str
    name: str
    domain: str
    prefix: int
    network: IPv4Network | IPv6Network | None = None


class Record(NamedTuple):
    """What a record says.

    :ivar redirect: the domain of that modifier, macros and all; ``""`` when there is none.
    :ivar exp: likewise.
    """

    directives: tuple[Directive, ...]
    redirect: str = ""
    exp: str = ""


def parse(text: bytes, client: str, go_on: Callable[[], object] = lambda: None) -> Record:
    """Read a record. An error anywhere is an error of all (section 4.6).

    :param client: IP address, whose kind decides which prefix length counts.
    :param go_on: called before each term; may raise.
    :raises PermError: for what is no record.
    """
    if not text.isascii():
        raise PermError("SPF record with other than ASCII characters")
    reader, directives, modifiers = _Mechanisms(client), [], {"redirect": "", "exp": ""}
    for term in filter(None, text.decode("ascii").split(" ")[1:]):
        go_on()
        _check_term(term)
        modifier = _MODIFIER.fullmatch(term)
        if modifier is None:
            directives.append(reader.read(term))
            continue
        name, value = modifier[1].lower(), modifier[2]
        if name not in modifiers:
            _check_macros(value, explaining=True)
            continue
        if modifiers[name]:
            raise PermError(f"more than one {name}=")
        modifiers[name] = reader.expand_domain(value)
        if not value:
            raise PermError(f"{name}= without a domain")
    return Record(tuple(directives), **modifiers)


def _check_term(term: str) -> None:
    if len(term) > MAX_TERM:
        raise PermError(f"SPF term of more than {MAX_TERM} octets")
    if not _VISIBLE.fullmatch(term):
        raise PermError(f"SPF term with a control character: {term}")


def _check_macros(text: str, explaining: bool = False) -> None:
    try:
        check_macros(text, explaining)
    except MacroSyntaxError as error:
        raise PermError(str(error)) from None


class _Mechanisms(spf.query):  # type: ignore[misc]
    """pyspf's reader of mechanisms, with macros left as they are: each is expanded when its turn comes."""

    def __init__(self, client: str) -> None:
        super().__init__(i=client, s="", h=_CURRENT_DOMAIN)

    def read(self, term: str) -> Directive:
        """Read one. Raises PermError."""
        network: IPv4Network | IPv6Network | None = None
        try:
            _, name, domain, prefix, result = self.validate_mechanism(term)
            if name == "ip4":
                network = IPv4Network((domain, prefix), strict=False)
            elif name == "ip6":
                network = IPv6Network((domain, prefix), strict=False)
        except (spf.PermError, ValueError) as error:
            raise PermError(str(error)) from None
        return Directive(term, result, name, domain or "", prefix, network)

    def expand_domain(self, arg: str) -> str:
        """Check a domain-spec, and leave it as it is. Raises PermError."""
        if spf.RE_TOPLAB.split(arg)[-1]:
            raise PermError(f"no domain name: {arg}")
        _check_macros(arg)
        return arg
