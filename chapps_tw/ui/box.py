"""The one box: finds users, addresses, domains, clients, messages and plans by what somebody types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from chapps_tw.mail.addresses import normal_domain, split_address
from chapps_tw.rest.exemptions import normal_value
from chapps_tw.ui.decisions import Decisions
from chapps_tw.ui.views import Answer, Goto, Html, View, Visit, url

# Of each kind.
SHOWN = 8
MAX_TEXT = 320

# Short and long queue ids (enable_long_queue_ids of postconf(5)).
_QUEUE_ID = re.compile(r"[0-9A-Fa-f]{6,20}|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,25}")

_KINDS = (
    ("users", "user", "User"),
    ("emails", "address", "Address"),
    ("domains", "domain", "Domain"),
    ("quotas", "plan", "Plan"),
)


class Match(NamedTuple):
    """Something that was found.

    :ivar kind: for people.
    :ivar is_exact: whether it is what was typed, and not only contains it.
    """

    kind: str
    name: str
    url: str
    is_exact: bool


class Box:
    """The views of the box."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions

    def views(self) -> Iterator[View]:
        yield View("GET", "/ui/search", self.search)
        yield View("GET", "/ui/suggest", self.suggest)

    async def search(self, visit: Visit) -> Answer:
        """Go to the card of what was typed; if it is not clear which, show what was found."""
        text = visit.query["q"][:MAX_TEXT]
        found = await self._find(visit, text) if text else []
        exact = [each for each in found if each.is_exact]
        if exact or len(found) == 1:
            return Goto((exact or found)[0].url)
        return Html("search.html", {"text": text, "found": found})

    async def suggest(self, visit: Visit) -> Answer:
        """Show what fits to what was typed so far."""
        text = visit.query["q"][:MAX_TEXT]
        return Html("suggestions.html", {"text": text, "found": await self._find(visit, text) if text else []})

    async def _find(self, visit: Visit, text: str) -> list[Match]:
        client = _client(text)
        if client:
            return [Match("Client", client, url("client", address=client), True)]
        found = []
        for kind, view, title in _KINDS:
            entries = await visit.find(f"/{kind}/", q=text, limit=SHOWN)
            for entry in entries.response if entries else ():
                name = entry["name"]
                found.append(Match(title, name, url(view, name=name), name.lower() == text.lower()))
        names = {known.name for known in found}
        found += [each._replace(is_exact=not names) for each in _by_form(text) if each.name not in names]
        if _QUEUE_ID.fullmatch(text) and await self._decisions.last(visit, queue_id=text):
            found.append(Match("Message", text, url("message", id=text), True))
        # A login that is an address is both: its card as a user has the limits.
        return sorted(found, key=lambda each: not each.is_exact)


def _client(text: str) -> str:
    if not any(mark in text for mark in ".:") or "@" in text:
        return ""
    try:
        return normal_value("client", text)
    except ValueError:
        return ""


def _by_form(text: str) -> Iterator[Match]:
    """Return what a text may be by its form, whether or not the book has it."""
    if "." in split_address(text)[1] and text.rpartition("@")[0]:
        yield Match("Address in mail", text, url("address", name=text), True)
    elif "." in text and normal_domain(text.removeprefix("@")):
        name = normal_domain(text.removeprefix("@"))
        yield Match("Domain in mail", name, url("domain", name=name), True)
