"""SPF results, and the ``Received-SPF`` header (RFC 7208, section 9.1)."""

from __future__ import annotations

import re
from typing import NamedTuple

from chapps_tw.mail.addresses import normal_domain
from chapps_tw.mail.memo import Memo

# Postfix has no limit of its own, and RFC 5322 (section 2.1.1) allows lines of 998 octets. Actions are
# truncated at 500 characters, which must not happen inside the header.
MAX_HEADER = 480
MAX_EXPLANATION = 200

# RFC 5321, section 4.5.3.1.
_MAX_LOCAL_PART = 64

_ATOM = r"[0-9A-Za-z!#$%&'*+/=?^_`{|}~-]+"
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_SPACE = re.compile(r"\s")
_UNPRINTABLE = re.compile(r"[^ -~]")

_COMMENTS = {
    "pass": "domain of {who} designates {client} as permitted sender",
    "fail": "domain of {who} does not designate {client} as permitted sender",
    "softfail": "domain of transitioning {who} does not designate {client} as permitted sender",
    "neutral": "{client} is neither permitted nor denied by domain of {who}",
    "none": "domain of {who} does not designate permitted sender hosts",
    "temperror": "temporary error in processing during lookup of {who}",
    "permerror": "permanent error in processing during lookup of {who}",
}


class SpfResult(NamedTuple):
    """The result of an SPF check.

    :ivar result: ``pass fail softfail neutral none temperror permerror`` (RFC 7208, section 2.6).
    :ivar identity: the identity that was checked, ``helo`` or ``mailfrom``.
    :ivar domain: domain of that identity as A-labels, ``""`` if it has none.
    :ivar explanation: the explanation string of the domain for a ``fail``, ``""`` if there is none. One line of
        printable ASCII; untrusted.
    :ivar mechanism: the mechanism that matched, such as ``ip4:192.0.2.0/24``; ``""`` if none did.
    :ivar problem: the cause of a ``temperror`` or ``permerror``.
    :ivar asked: for ``temperror``, the outcome of the query to each name server; for the log only.
    """

    result: str
    identity: str = "mailfrom"
    domain: str = ""
    explanation: str = ""
    mechanism: str = ""
    problem: str = ""
    asked: str = ""


# Overhead of a cached header in bytes: the objects of key and value.
_HEADER = 1200

# Postfix sends a request for each recipient of a message; all get the same header.
_headers: Memo[tuple[SpfResult, str, str, str, str], str] = Memo(2 << 20)


def one_line(text: str, limit: int = MAX_EXPLANATION) -> str:
    """Return untrusted text as one line of printable ASCII, truncated to ``limit`` characters."""
    return _UNPRINTABLE.sub("?", _SPACE.sub(" ", text[:limit]))


def received_spf(found: SpfResult, client: str, helo: str, sender: str, receiver: str) -> str:
    """Return the header ``Received-SPF: ...`` on one line, at most ``MAX_HEADER`` characters of printable ASCII.

    If it is too long, the comment is omitted first, then the least important key-value pairs. A pair whose value
    cannot be written unchanged is omitted as well: a truncated name would be the name of somebody else.

    :param client, helo, sender: as the client sent them; ``""`` is the null sender.
    :param receiver: name of the host that checked; ``""`` omits it.
    """
    wanted = (found, client, helo, sender, receiver)
    header = _headers.get(wanted)
    if header is None:
        header = _header(*wanted)
        _headers.keep(wanted, header, _size_of(found, client, helo, sender, header))
    return header


def _size_of(found: SpfResult, *texts: str) -> int:
    """Bytes of a cached header and its key: at most four per character, and the overhead."""
    return 4 * (sum(map(len, texts)) + sum(map(len, found))) + _HEADER


def _header(found: SpfResult, client: str, helo: str, sender: str, receiver: str) -> str:
    address = _address(sender)
    values = {
        "client-ip": client or None,
        "envelope-from": address,
        "helo": _in_ascii(helo) or None,
        "identity": found.identity,
        "problem": found.problem or None,
        "receiver": receiver or None,
        "mechanism": found.mechanism or None,
    }
    pairs = [
        _pair(key, text) for key, text in values.items() if text is not None and text.isascii() and text.isprintable()
    ]
    start = f"Received-SPF: {found.result}"
    full = f"{start} {_comment(found, client, address, receiver)} {'; '.join(pairs)}"
    return full if len(full) <= MAX_HEADER else f"{start} {'; '.join(_fitting(pairs, MAX_HEADER - len(start)))}"


def _fitting(pairs: list[str], limit: int) -> list[str]:
    """Return the pairs that fit into ``limit`` characters, by priority."""
    fitting = []
    for pair in pairs:
        if len(pair) + 2 <= limit:
            fitting.append(pair)
            limit -= len(pair) + 2
    return fitting


def _address(sender: str) -> str | None:
    """Quote a mail address, and truncate its local part if that is too long; ``None`` if it is not ASCII.

    Postfix sends addresses unquoted: the domain is what follows the last ``@``.
    """
    if not sender:
        return ""
    local, at, domain = sender.rpartition("@") if "@" in sender else (sender, "", "")
    name = _in_ascii(domain)
    if (domain and not name) or _UNPRINTABLE.search(local + name):
        return None
    if len(local) > _MAX_LOCAL_PART:
        local = local[: _MAX_LOCAL_PART - 3] + "..."
    if not _DOT_ATOM.fullmatch(local):
        local = _quoted(local)
    return local + at + name


def _in_ascii(name: str) -> str:
    """Convert U-labels of a name to A-labels; ``""`` if that is not possible."""
    return name if name.isascii() else normal_domain(name)


def _pair(key: str, value: str) -> str:
    return f"{key}={value if _DOT_ATOM.fullmatch(value) else _quoted(value)}"


def _quoted(text: str) -> str:
    return f'"{_escaped(text, chr(34))}"'


def _comment(found: SpfResult, client: str, address: str | None, receiver: str) -> str:
    who = found.domain if address is None else address or "<>"
    if found.identity == "helo":
        who = f"postmaster@{found.domain}"
    text = _COMMENTS[found.result].format(who=who or "the sender", client=client or "an unknown client")
    if receiver:
        text = f"{receiver}: {text}"
    return f"({_escaped(one_line(text, MAX_HEADER), '()')})"


def _escaped(text: str, special: str) -> str:
    text = text.replace("\\", r"\\")
    for character in special:
        text = text.replace(character, f"\\{character}")
    return text
