"""Mail names in the one form that is compared: domains as lower-case A-labels."""

from __future__ import annotations

import re

import idna

from chapps_tw.memo import Answers

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_A_LABEL = "xn--"
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"@([^@]*)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

MAX_DOMAIN = 253
MAX_EMAIL = 320

# Bytes for the names that are remembered, of each kind.
_ROOM = 8 << 20


def normal_domain(text: str) -> str:
    """A domain name as A-labels (RFC 5890) in lower case, without a final dot.

    :returns: ``""`` when the text is no domain name: empty, too long, an address literal, not
        encodable by IDNA 2008 (UTS 46, non-transitional), of characters that no name has, with an
        A-label that cannot be decoded, or all digits at its end as an IP address is (RFC 3696, section 2).
    """
    return _domains[text]


def _normal_domain(text: str) -> str:
    name = text.removesuffix(".")
    if not name or len(name) > MAX_DOMAIN:
        return ""
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True, transitional=False).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return ""
    name = name.lower()
    labels = name.split(".")
    if len(name) > MAX_DOMAIN or labels[-1].isdigit() or not all(map(_is_label, labels)):
        return ""
    return name


_domains = Answers(_normal_domain, _ROOM)


def _is_label(label: str) -> bool:
    if not _LABEL.fullmatch(label):
        return False
    if label.startswith(_A_LABEL):
        # Not idna's decoder: there are domains with symbols that IDNA 2008 does not allow.
        try:
            label.removeprefix(_A_LABEL).encode("ascii").decode("punycode")
        except UnicodeError:
            return False
    return True


def split_address(text: str) -> tuple[str, str]:
    """A mail address as ``(address, domain)``, the domain normal and the local part as it is.

    Postfix hands addresses over without their quotes, so one with a second ``@`` could be read in
    two ways.

    :returns: ``("", "")`` when there is no local part, no domain, or more than one ``@``.
    """
    return _addresses[text]


def _split_address(text: str) -> tuple[str, str]:
    local, at, rest = text.rpartition("@")
    domain = normal_domain(rest)
    if not at or not local or not domain or "@" in local or len(local) + len(domain) >= MAX_EMAIL:
        return "", ""
    if not local.isprintable():
        return "", ""
    return f"{local}@{domain}", domain


_addresses = Answers(_split_address, _ROOM)


def normal_email(text: str) -> str:
    """A mail address with its domain normal and its local part as it is; ``""`` when it is none."""
    return split_address(text)[0]


def unquoted(text: str) -> str:
    """A mail address as Postfix hands it over: a local part in quotes (RFC 5321, section 4.1.2) without them."""
    match = _QUOTED.fullmatch(text)
    return _ESCAPED.sub(r"\1", match[1]) + "@" + match[2] if match else text


def unicode_domain(name: str) -> str:
    """A normal domain name as U-labels, for finding it where it was stored so."""
    try:
        return idna.decode(name) if _A_LABEL in name else name
    except (idna.IDNAError, UnicodeError):
        return name
