"""What SPF found out, and the header that tells of it (RFC 7208, section 9.1)."""

from __future__ import annotations

import re
from typing import NamedTuple

from chapps_tw.memo import Memo

# Of the whole action. Postfix has no bound of its own, and RFC 5322 (section 2.1.1) allows lines of
# 998 octets; an action is cut at 500 characters, which must not happen inside the header.
MAX_HEADER = 480
MAX_EXPLANATION = 200
_MAX_VALUE = 140

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
    """

    result: str
    identity: str = "mailfrom"
    domain: str = ""
    explanation: str = ""
    mechanism: str = ""
    problem: str = ""


# A message is asked about once for each recipient.
_headers: Memo[tuple[SpfResult, str, str, str, str], str] = Memo(2 << 20)


def one_line(text: str, most: int = MAX_EXPLANATION) -> str:
    """A stranger's text as one short line of printable ASCII."""
    return _UNPRINTABLE.sub("?", _SPACE.sub(" ", text[:most]))


def received_spf(found: SpfResult, client: str, helo: str, sender: str, receiver: str) -> str:
    """The header ``Received-SPF: ...`` on one line, at most ``MAX_HEADER`` characters of printable ASCII.

    Where there is not room for all, the comment is left out first, then the pairs that matter least.

    :param client, helo, sender: as the client gave them; ``""`` is the null sender.
    :param receiver: the name of the host that checked; ``""`` leaves it out.
    """
    wanted = (found, client, helo, sender, receiver)
    header = _headers.get(wanted)
    if header is None:
        header = _header(*wanted)
        _headers.keep(wanted, header)
    return header


def _header(found: SpfResult, client: str, helo: str, sender: str, receiver: str) -> str:
    pairs = [
        _pair("client-ip", client),
        _pair("envelope-from", sender, always=True),
        _pair("helo", helo),
        _pair("identity", found.identity),
        _pair("problem", found.problem),
        _pair("receiver", receiver),
        _pair("mechanism", found.mechanism),
    ]
    pairs = [pair for pair in pairs if pair]
    start = f"Received-SPF: {found.result}"
    comment = _comment(found, client, sender, receiver)
    full = f"{start} {comment} {'; '.join(pairs)}"
    if len(full) <= MAX_HEADER:
        return full
    while len(start) + sum(len(pair) + 2 for pair in pairs) > MAX_HEADER:
        pairs.pop()
    return f"{start} {'; '.join(pairs)}"


def _pair(key: str, value: str, always: bool = False) -> str:
    if not value and not always:
        return ""
    text = one_line(value, _MAX_VALUE)
    if _DOT_ATOM.fullmatch(text):
        return f"{key}={text}"
    return f'{key}="{_escaped(text, chr(34))}"'


def _comment(found: SpfResult, client: str, sender: str, receiver: str) -> str:
    who = sender if found.identity == "mailfrom" else f"postmaster@{found.domain}"
    text = _COMMENTS[found.result].format(who=who or "<>", client=client or "an unknown client")
    if receiver:
        text = f"{receiver}: {text}"
    return f"({_escaped(one_line(text, MAX_HEADER), '()')})"


def _escaped(text: str, special: str) -> str:
    return re.sub(f"[{re.escape(special)}\\\\]", lambda match: "\\" + match[0], text)
