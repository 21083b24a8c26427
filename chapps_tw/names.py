"""Mail names in the one form that is compared: domains as lower-case A-labels."""

from __future__ import annotations

import re
from functools import lru_cache

import idna

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")

MAX_DOMAIN = 253
MAX_EMAIL = 320


@lru_cache(8192)
def normal_domain(text: str) -> str:
    """A domain name as A-labels (RFC 5890) in lower case, without a final dot.

    :returns: ``""`` when the text is no domain name: empty, too long, an address literal, not
        encodable by IDNA 2008 (UTS 46, non-transitional), or of characters that no name has.
    """
    name = text.removesuffix(".")
    if not name or len(name) > MAX_DOMAIN:
        return ""
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True, transitional=False).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return ""
    name = name.lower()
    if len(name) > MAX_DOMAIN or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        return ""
    return name


@lru_cache(8192)
def split_address(text: str) -> tuple[str, str]:
    """A mail address as ``(address, domain)``, the domain normal and the local part as it is.

    Postfix hands addresses over without their quotes, so one with a second ``@`` could be read in
    two ways.

    :returns: ``("", "")`` when there is no local part, no domain, or more than one ``@``.
    """
    local, at, rest = text.rpartition("@")
    domain = normal_domain(rest)
    if not at or not local or not domain or "@" in local or len(local) + len(domain) >= MAX_EMAIL:
        return "", ""
    if not local.isprintable():
        return "", ""
    return f"{local}@{domain}", domain


def normal_email(text: str) -> str:
    """A mail address with its domain normal and its local part as it is; ``""`` when it is none."""
    return split_address(text)[0]


def unicode_domain(name: str) -> str:
    """A normal domain name as U-labels, for finding it where it was stored so."""
    try:
        return idna.decode(name) if "xn--" in name else name
    except (idna.IDNAError, UnicodeError):
        return name
