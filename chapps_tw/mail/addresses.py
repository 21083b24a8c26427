"""Normal forms of logins, mail addresses and domains: domains as lower-case A-labels, the rest in lower case."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial
from unicodedata import normalize

import idna

from chapps_tw.mail.memo import Memoized

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_A_LABEL = "xn--"
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"@([^@]*)', re.DOTALL)
_DOT_STRING = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

MAX_USER = 128
MAX_DOMAIN = 253
# RFC 5321, 4.5.3.1.1.
MAX_LOCAL = 64
MAX_EMAIL = 320

# No name of the book has a longer spelling: composed characters have three parts at most, as in Hangul. Composing takes
# quadratic time.
_MAX_COMPOSED = 3 * MAX_EMAIL

# Size of each cache of names, in bytes.
_CACHE_BYTES = 8 << 20


def normal_domain(text: str) -> str:
    """Return a domain name as lower-case A-labels (RFC 5890), without the final dot.

    :returns: ``""`` if the text is not a domain name: empty, too long, an address literal, not
        encodable by IDNA 2008 (UTS 46, non-transitional), with invalid characters, with an A-label
        that cannot be decoded, or with a last label of digits only, like an IP address (RFC 3696, section 2).
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


_domains = Memoized(_normal_domain, _CACHE_BYTES)


def _is_label(label: str) -> bool:
    if not _LABEL.fullmatch(label):
        return False
    if label.startswith(_A_LABEL):
        # Not idna.decode: some registered domains have symbols that IDNA 2008 forbids.
        try:
            label.removeprefix(_A_LABEL).encode("ascii").decode("punycode")
        except UnicodeError:
            return False
    return True


def normal_name(text: str, fold_case: bool = True) -> str:
    """Return the normal form of a login or a mail address. Only normal forms are used as keys and compared.

    A domain name after the last ``@`` becomes lower-case A-labels. The rest becomes lower case (RFC 5321,
    section 2.4, discourages names that differ only in case) and NFC (RFC 8265, section 3.3, for user names).

    :param fold_case: ``[CHAPPS] fold_case``; if false, only domain names become lower case.
    """
    # Fast path: an ASCII name without a final dot can only differ in case.
    if fold_case and text.isascii() and text[-1:] != ".":
        return text.lower()
    return _names[fold_case][text]


def _normal_name(text: str, fold_case: bool) -> str:
    local, at, rest = text.rpartition("@")
    domain = normal_domain(rest) if at else ""
    if not domain:
        local, at = text, ""
    local = local.lower() if fold_case else local
    return (normalize("NFC", local) if len(local) <= _MAX_COMPOSED else local) + at + domain


_names = {fold: Memoized(partial(_normal_name, fold_case=fold), _CACHE_BYTES) for fold in (False, True)}


def split_address(text: str, fold_case: bool = True) -> tuple[str, str]:
    """Return a mail address as ``(address, domain)``, both in normal form.

    The domain is what follows the last ``@``: Postfix sends addresses unquoted, and parses them the same way.

    :returns: ``""`` as the domain if it is invalid. ``""`` as the address if no user can be linked to it: it has
        no domain or no local part, contains unprintable characters, or is longer than the book allows.
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


_addresses = {fold: Memoized(partial(_split_address, fold_case=fold), _CACHE_BYTES) for fold in (False, True)}


def normal_email(text: str, fold_case: bool = True) -> str:
    """Return the normal form of a mail address, ``""`` if the book cannot contain it."""
    return split_address(text, fold_case)[0]


def mailbox(text: str) -> str:
    """Return an address that mail can be sent to as it is: ASCII, and no quotes (``Dot-string``, RFC 5321, 4.1.2).

    :returns: with the domain in normal form; ``""`` if it is none.
    """
    local, _, domain = text.rpartition("@")
    is_local_part = len(local) <= MAX_LOCAL and _DOT_STRING.fullmatch(local)
    return f"{local}@{domain}" if is_local_part and (domain := normal_domain(domain)) else ""


def without_extension(address: str, separators: Collection[str]) -> str:
    """Return an address without its extension: ``alice@d`` for ``alice+shop@d``.

    The extension starts at the first separator, as with ``recipient_delimiter`` of Postfix (postconf(5)).

    :param separators: single characters. A separator at the start of the local part does not start an extension.
    :returns: ``""`` if there is no extension.
    """
    local, _, domain = address.rpartition("@")
    end = min((place for place in map(local.find, separators) if place >= 0), default=0)
    return f"{local[:end]}@{domain}" if end else ""


def unquoted(text: str) -> str:
    """Return a mail address with an unquoted local part (RFC 5321, section 4.1.2), as Postfix sends it."""
    match = _QUOTED.fullmatch(text)
    return _ESCAPED.sub(r"\1", match[1]) + "@" + match[2] if match else text


def unicode_domain(name: str) -> str:
    """Return a normal domain name as U-labels, to find names that were stored in that form."""
    try:
        return idna.decode(name) if _A_LABEL in name else name
    except (idna.IDNAError, UnicodeError):
        return name
