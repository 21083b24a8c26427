"""What SPF found out, and the header that tells of it (RFC 7208, section 9.1)."""

from __future__ import annotations

import re
from typing import NamedTuple

from chapps_tw.mail.addresses import normal_domain
from chapps_tw.mail.memo import Memo

# Of the whole action. Postfix has no bound of its own, and RFC 5322 (section 2.1.1) allows lines of
# 998 octets; an action is cut at 500 characters, which must not happen inside the header.
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
    :ivar identity: the one it is about, ``helo`` or ``mailfrom``.
    :ivar domain: of that identity, A-labels; ``""`` where it has none.
    :ivar explanation: what the domain's owner says about a ``fail``; ``""`` if nothing. One line of
        printable ASCII, written by a stranger.
    :ivar mechanism: the one that matched, such as ``ip4:192.0.2.0/24``; ``""`` when none did.
    :ivar problem: what went wrong, with ``temperror`` and ``permerror``.
    :ivar asked: what each name server that was asked did, with ``temperror``; for the log alone.
    """

    result: str
    identity: str = "mailfrom"
    domain: str = ""
    explanation: str = ""
    mechanism: str = ""
    problem: str = ""
    asked: str = ""


# Bytes of what holds a header and what it was made from, and of what else there is of a result.
_HEADER = 1200

# A message is asked about once for each recipient.
_headers: Memo[tuple[SpfResult, str, str, str, str], str] = Memo(2 << 20)


def one_line(text: str, most: int = MAX_EXPLANATION) -> str:
    """A stranger's text as one short line of printable ASCII."""
    return _UNPRINTABLE.sub("?", _SPACE.sub(" ", text[:most]))


def received_spf(found: SpfResult, client: str, helo: str, sender: str, receiver: str) -> str:
    """The header ``Received-SPF: ...`` on one line, at most ``MAX_HEADER`` characters of printable ASCII.

    Where there is not room for all, the comment is left out first, then the pairs that matter least. A pair is left
    out as well when it cannot be told as it is: a name of which a part is missing would be another's.

    :param client, helo, sender: as the client gave them; ``""`` is the null sender.
    :param receiver: the name of the host that checked; ``""`` leaves it out.
    """
    wanted = (found, client, helo, sender, receiver)
    header = _headers.get(wanted)
    if header is None:
        header = _header(*wanted)
        _headers.keep(wanted, header, _room_for(found, client, helo, sender, header))
    return header


def _room_for(found: SpfResult, *texts: str) -> int:
    """Bytes that a header and what it was made from take: four for each character, and what holds them."""
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


def _fitting(pairs: list[str], room: int) -> list[str]:
    """As many pairs as there is room for, the first ones first."""
    fitting = []
    for pair in pairs:
        if len(pair) + 2 <= room:
            fitting.append(pair)
            room -= len(pair) + 2
    return fitting


def _address(sender: str) -> str | None:
    """A mail address with its quotes, its local part shortened if that is too long; ``None`` when it has no such form.

    Postfix hands addresses over without their quotes: the domain is what stands after the last ``@``.
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
    """A name with A-labels for its U-labels; ``""`` when it has none."""
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
