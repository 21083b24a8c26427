"""Cards: all about a user, a domain, an address, a client, a message or a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chapps_tw.mail.network import client_address
from chapps_tw.rest.exemptions import normal_value
from chapps_tw.rest.routing import Refusal
from chapps_tw.ui.buttons import Button, button
from chapps_tw.ui.decisions import Decisions
from chapps_tw.ui.exemptions import Exemptions
from chapps_tw.ui.views import Answer, Html, View, Visit


class Cards:
    """The views of cards."""

    def __init__(self, decisions: Decisions, exemptions: Exemptions) -> None:
        self._decisions = decisions
        self._exemptions = exemptions

    def views(self) -> Iterator[View]:
        yield View("GET", "/ui/user", self.user)
        yield View("GET", "/ui/domain", self.domain)
        yield View("GET", "/ui/address", self.address)
        yield View("GET", "/ui/client", self.client)
        yield View("GET", "/ui/message", self.message)
        yield View("GET", "/ui/plan", self.plan)

    async def user(self, visit: Visit) -> Answer:
        name = visit.query["name"]
        limits = (await visit.call("GET", "/live/limits/{user}", user=name)).response
        user = limits["user"]
        entry = await visit.find("/users/by-name/{name}/", name=user) if limits["known"] else None
        return Html(
            "user.html",
            {
                "limits": limits,
                "user": user,
                "entry": entry,
                "entries": entry.beside if entry else {"quota": None, "domains": [], "emails": []},
                "rates": await _rates(visit, "user", user),
                "decisions": await self._decisions.last(visit, user=user),
                "buttons": _user_buttons(visit, user, limits, entry is not None),
            },
        )

    async def domain(self, visit: Visit) -> Answer:
        name = _normal("sender_domain", visit.query["name"])
        entry = await visit.find("/domains/by-name/{name}/", name=name)
        pool = (await visit.call("GET", "/live/pools/{domain}", domain=name)).response
        return Html(
            "domain.html",
            {
                "domain": name,
                "entry": entry,
                "plans": await _plans(visit, entry.response if entry else {}),
                "pool": pool,
                "exemptions": await self._exemptions.of_domain(visit, name),
                "received": await self._decisions.last(visit, recipient=f"@{name}"),
                "sent": await self._decisions.last(visit, sender=f"@{name}"),
                "buttons": _domain_buttons(visit, name, entry is not None),
            },
        )

    async def address(self, visit: Visit) -> Answer:
        name = visit.query["name"]
        values = {"kind": "sender", "value": name}
        return Html(
            "address.html",
            {
                "address": name,
                "entry": await visit.find("/emails/by-name/{name}/", name=name),
                "user": await visit.find("/users/by-name/{name}/", name=name),
                "exemptions": await self._exemptions.of_address(visit, name),
                "sent": await self._decisions.last(visit, sender=name),
                "received": await self._decisions.last(visit, recipient=name),
                "buttons": [
                    button(visit, "exempt", "Exempt as a sender", **values),
                    button(visit, "exempt", "Exempt as a recipient", **{**values, "kind": "recipient"}),
                ],
            },
        )

    async def client(self, visit: Visit) -> Answer:
        client = _normal("client", visit.query["address"])
        address = client_address(client)
        tally = await visit.find("/live/grl/tally/{client_address}", client_address=client) if address else None
        exempt = {"kind": "client", "value": client}
        return Html(
            "client.html",
            {
                "client": client,
                "tally": tally.response if tally else [],
                "rates": [*await _rates(visit, "client", client), *await _rates(visit, "client_network", client)],
                "exemptions": await self._exemptions.of_client(visit, client),
                "decisions": await self._decisions.last(visit, client=client),
                "buttons": [
                    button(visit, "exempt", "Exempt from SPF", **exempt, scope="spf"),
                    button(visit, "exempt", "Exempt from greylisting", **exempt, scope="greylisting"),
                    button(visit, "exempt", "Exempt from a limit", **exempt, scope="limit:"),
                    *([button(visit, "forget", client=client)] if tally and tally.response else []),
                ],
            },
        )

    async def message(self, visit: Visit) -> Answer:
        id = visit.query["id"]
        decisions = await self._decisions.last(visit, queue_id=id)
        return Html("message.html", {"id": id, "decisions": decisions, "buttons": []})

    async def plan(self, visit: Visit) -> Answer:
        entry = await visit.call("GET", "/quotas/by-name/{name}/", name=visit.query["name"])
        users = await visit.call("GET", "/quotas/{id}/users/", id=entry.response["id"], limit=100)
        return Html("plan.html", {"plan": entry.response, "limits": entry.beside["limits"], "users": users.response})


def _normal(kind: str, text: str) -> str:
    """Return the normal form of a domain or a client. Raises :class:`Refusal` 422."""
    try:
        return normal_value(kind, text)
    except ValueError as error:
        raise Refusal(422, f"{text or 'It'} {error}.") from None


async def _rates(visit: Visit, per: str, what: str) -> list[dict[str, Any]]:
    """Return the limits of the configuration that count somebody, with what is used of them."""
    found = []
    for limit in (await visit.call("GET", "/live/rate-limits/")).response:
        if limit["per"] == per and limit["applied"]:
            use = await visit.find("/live/rate-limits/{name}/{what}", name=limit["name"], what=what)
            if use is not None:
                about = {"unit": limit["unit"], "window": limit["window"], "mode": limit["mode"]}
                reset = button(visit, "reset-limit", limit=limit["name"], what=what)
                found.append({**use.response, **about, "reset": reset})
    return found


async def _plans(visit: Visit, domain: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of the plans of a domain, ``""`` for none."""
    found = dict.fromkeys(("each_quota", "pool_quota"), "")
    for field in found:
        quota = await visit.find("/quotas/{id}/", id=domain[field]) if domain.get(field) else None
        found[field] = quota.response["name"] if quota else ""
    return found


def _user_buttons(visit: Visit, user: str, limits: Mapping[str, Any], known: bool) -> list[Button]:
    used = any(limit["used"] for limit in limits["limits"] if limit["level"] != "domain pool")
    buttons = [button(visit, "reset", user=user)] if used or not known else []
    if not known:
        return [*buttons, button(visit, "new-user", name=user)]
    suspended = _suspensions(limits["overrides"])
    buttons += [button(visit, "raise", user=user)]
    buttons += [button(visit, "release", id=each["id"], user=user) for each in suspended]
    buttons += [] if suspended else [button(visit, "suspend", user=user)]
    return [*buttons, button(visit, "plan", user=user), button(visit, "link", user=user)]


def _suspensions(overrides: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [each for each in overrides if each["kind"] == "suspended" and each["about"] == "user"]


def _domain_buttons(visit: Visit, name: str, known: bool) -> list[Button]:
    exempt = {"kind": "sender_domain", "value": name}
    buttons = [
        button(visit, "exempt", "Exempt from SPF", **exempt, scope="spf"),
        button(visit, "exempt", "Exempt from greylisting", **exempt, scope="greylisting"),
    ]
    if not known:
        return [*buttons, button(visit, "new-domain", name=name)]
    own = [button(visit, action, domain=name) for action in ("flags", "domain-plan", "raise", "suspend", "reset-pool")]
    return [*own, *buttons]
