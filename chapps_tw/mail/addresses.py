"""Mail names in the one form that is compared: domains as lower-case A-labels, the rest without letter case."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial
from unicodedata import normalize

import idna

from chapps_tw.mail.memo import Answers

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_A_LABEL = "xn--"
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"@([^@]*)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

MAX_USER = 128
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


def normal_name(text: str, fold_case: bool = True) -> str:
    """A login or a mail address in its normal form; no name but this form is a key, or compared.

    What follows the last ``@`` is lower-case A-labels where it is a domain name. The rest is in lower case
    (RFC 5321, section 2.4, discourages names that differ in nothing else), and in NFC as RFC 8265, section 3.3,
    has it for user names.

    :param fold_case: ``[CHAPPS] fold_case``; without it the case of what is no domain name stays.
    """
    # Nothing but its case can differ in ASCII, save for a final dot.
    if fold_case and text.isascii() and text[-1:] != ".":
        return text.lower()
    return _names[fold_case][text]


def _normal_name(text: str, fold_case: bool) -> str:
    local, at, rest = text.rpartition("@")
    domain = normal_domain(rest) if at else ""
    if not domain:
        local, at = text, ""
    return normalize("NFC", local.lower() if fold_case else local) + at + domain


_names = {fold: Answers(partial(_normal_name, fold_case=fold), _ROOM) for fold in (False, True)}


def split_address(text: str, fold_case: bool = True) -> tuple[str, str]:
    """A mail address as ``(address, domain)``, both in their normal form.

    The domain is what follows the last ``@``: Postfix hands addresses over without their quotes, and reads them
    so itself.

    :returns: ``""`` for a domain that is none. ``""`` for an address that nobody can be linked to: one without a
        domain or a local part, with characters that cannot be shown, or longer than any in the book.
    """
    return _addresses[fold_case][text]


def _split_address(text: str, fold_case: bool) -> tuple[str, str]:
    local, at, rest = text.rpartition("@")
    domain = normal_domain(rest) if at else ""
    if not domain:
        return "", ""
    address = normal_name(text, fold_case)
    linkable = local and len(address) <= MAX_EMAIL and address.isprintable()
    return (address if linkable else ""), domain


_addresses = {fold: Answers(partial(_split_address, fold_case=fold), _ROOM) for fold in (False, True)}


def normal_email(text: str, fold_case: bool = True) -> str:
    """A mail address in its normal form; ``""`` when it is none that can be in the book."""
    return split_address(text, fold_case)[0]


def without_extension(address: str, separators: Collection[str]) -> str:
    """The address that a sub-address belongs to: ``alice@d`` of ``alice+shop@d``.

    Cut before the first separator, as Postfix does with ``recipient_delimiter`` (postconf(5)).

    :param separators: characters; none of them is the first of a local part that is cut.
    :returns: ``""`` when it is no sub-address.
    """
    local, _, domain = address.rpartition("@")
    end = min((place for place in map(local.find, separators) if place >= 0), default=0)
    return f"{local[:end]}@{domain}" if end else ""


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
