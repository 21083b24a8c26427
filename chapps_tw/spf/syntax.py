"""Syntax of SPF records (RFC 7208, sections 4.6, 5, 6 and 12). pyspf parses the mechanisms."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

import spf

from chapps_tw.spf.macros import MacroSyntaxError, check_macros

# Octets of one term. The time that pyspf takes is quadratic in them.
MAX_TERM = 512

_VISIBLE = re.compile(r"[!-~]*")
_MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*)=(.*)", re.IGNORECASE)

# The default domain-spec of a mechanism.
_CURRENT_DOMAIN = "%{d}"


class PermError(Exception):
    """A domain's records are invalid (RFC 7208, section 2.6.7). The text is one line."""


class Directive(NamedTuple):
    """A mechanism with its qualifier.

    :ivar text: as written.
    :ivar result: of a match: ``pass fail softfail neutral``.
    :ivar name: ``all include a mx ptr exists ip4 ip6``.
    :ivar domain: the domain-spec, macros not expanded.
    :ivar prefix: prefix length for the client's address family.
    :ivar network: of ``ip4`` and ``ip6``.
    """

    text: str
    result: str
    name: str
    domain: str
    prefix: int
    network: IPv4Network | IPv6Network | None = None


class Record(NamedTuple):
    """A parsed record.

    :ivar redirect: the domain-spec of that modifier, macros not expanded; ``""`` if there is none.
    :ivar exp: likewise.
    """

    directives: tuple[Directive, ...]
    redirect: str = ""
    exp: str = ""


def parse(text: bytes, client: str, before_term: Callable[[], object] = lambda: None) -> Record:
    """Parse a record. Any syntax error makes the whole record invalid (section 4.6).

    :param client: IP address; its family selects the prefix length of dual-cidr mechanisms.
    :param before_term: called before each term; may raise.
    :raises PermError: for an invalid record.
    """
    if not text.isascii():
        raise PermError("SPF record with non-ASCII characters")
    parser, directives, modifiers = _MechanismParser(client), [], {"redirect": "", "exp": ""}
    for term in filter(None, text.decode("ascii").split(" ")[1:]):
        before_term()
        _check_term(term)
        modifier = _MODIFIER.fullmatch(term)
        if modifier is None:
            directives.append(parser.parse(term))
            continue
        name, value = modifier[1].lower(), modifier[2]
        if name not in modifiers:
            _check_macros(value, explaining=True)
            continue
        if modifiers[name]:
            raise PermError(f"duplicate {name}=")
        modifiers[name] = parser.expand_domain(value)
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


class _MechanismParser(spf.query):  # type: ignore[misc]
    """pyspf's parser of mechanisms, without macro expansion: a term's macros are expanded when it is evaluated."""

    def __init__(self, client: str) -> None:
        super().__init__(i=client, s="", h=_CURRENT_DOMAIN)

    def parse(self, term: str) -> Directive:
        """Parse a mechanism. Raises PermError."""
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
        """Check a domain-spec, and return it unchanged. Raises PermError."""
        if spf.RE_TOPLAB.split(arg)[-1]:
            raise PermError(f"not a domain name: {arg}")
        _check_macros(arg)
        return arg
