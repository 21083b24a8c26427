"""The exemptions at work for somebody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Any

from chapps_tw.mail.addresses import normal_email
from chapps_tw.rest.slices import Slices
from chapps_tw.ui.views import Visit

_PAGE = 1000

Exemption = Mapping[str, Any]


class Exemptions:
    """Finds exemptions, of which the book has at most some thousand."""

    def __init__(self, slices: Slices) -> None:
        self._slices = slices

    async def of_client(self, visit: Visit, client: str) -> list[Exemption]:
        """Return those of the networks that contain a client."""
        network = ip_network(client)

        def fits(each: Exemption) -> bool:
            other = ip_network(each["value"]) if each["kind"] == "client" else network
            return each["kind"] == "client" and other.version == network.version and other.overlaps(network)

        return await self._those(visit, fits)

    async def of_domain(self, visit: Visit, domain: str) -> list[Exemption]:
        """Return those of a domain, and of the domains that it is under."""

        def fits(each: Exemption) -> bool:
            value = each["value"]
            under = value.startswith(".") and f".{domain}".endswith(value)
            return each["kind"] == "sender_domain" and (value == domain or under)

        return await self._those(visit, fits)

    async def of_address(self, visit: Visit, address: str) -> list[Exemption]:
        """Return those of an address, as a sender or as a recipient."""
        name = normal_email(address)
        return await self._those(
            visit, lambda each: each["kind"] in ("sender", "recipient") and each["value"].lower() == name
        )

    async def _those(self, visit: Visit, fits: Callable[[Exemption], bool]) -> list[Exemption]:
        found: list[Exemption] = []
        for skip in range(0, 10 * _PAGE, _PAGE):
            page = (await visit.call("GET", "/exemptions/", active=True, skip=skip, limit=_PAGE)).response
            found += await self._slices.collect(each if fits(each) else None for each in page)
            if len(page) < _PAGE:
                break
        return found
