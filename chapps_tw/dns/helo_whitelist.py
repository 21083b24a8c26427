"""Clients that skip the inbound policies, by the name they say in HELO and the address they come from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

from chapps_tw.mail.addresses import normal_domain
from chapps_tw.mail.network import Address, HeloEntry, client_address
from chapps_tw.mail.request import PolicyRequest


class HeloWhitelist:
    """The entries that DNS agrees with.

    :param entries: as configured. None counts before :meth:`verify` has looked at it, but for those
        that give 127.0.0.1 or ::1.
    :param look_up: takes a name and ``A``, ``AAAA`` or ``PTR``, gives the records as text; raises
        OSError when DNS does not answer.
    :param warn: takes a sentence for the log.
    """

    def __init__(
        self,
        entries: Sequence[HeloEntry],
        look_up: Callable[[str, str], Awaitable[Sequence[object]]],
        warn: Callable[[str], None],
    ) -> None:
        self._entries = tuple(entries)
        self._look_up = look_up
        self._warn = warn
        self._allowed: dict[str, dict[HeloEntry, frozenset[Address]]] = {}
        for entry in self._entries:
            if entry.address is not None and entry.address.is_loopback:
                self._allow(entry, frozenset((entry.address,)))

    def matches(self, request: PolicyRequest) -> bool:
        """Whether the client of a request says a name of the list from an address that may say it."""
        if not self._allowed:
            return False
        found = self._allowed.get(normal_domain(request.get("helo_name")))
        if found is None:
            return False
        address = client_address(request.get("client_address"))
        return any(address in addresses for addresses in found.values())

    async def verify(self) -> bool:
        """Look every entry up: its name's address and that address's name must agree.

        One that does not agree is logged and left out; one that DNS does not answer for stays as it was.

        :returns: whether DNS answered for all of them.
        """
        answered = True
        for entry in self._entries:
            if entry.address is not None and entry.address.is_loopback:
                continue
            try:
                addresses = await self._agreeing(entry)
            except OSError as error:
                self._warn(f"helo_whitelist: {entry} could not be checked: {error}")
                answered = False
                continue
            self._allow(entry, addresses)
            if not addresses:
                self._warn(f"helo_whitelist: {entry} is left out: its address and its name do not agree in DNS")
        return answered

    def _allow(self, entry: HeloEntry, addresses: frozenset[Address]) -> None:
        of_name = {**self._allowed.get(entry.name, {}), entry: addresses}
        self._allowed[entry.name] = of_name

    async def _agreeing(self, entry: HeloEntry) -> frozenset[Address]:
        records = [*await self._look_up(entry.name, "A"), *await self._look_up(entry.name, "AAAA")]
        addresses = [ip_address(str(record)) for record in records]
        if entry.address is not None:
            addresses = [address for address in addresses if address == entry.address]
        return frozenset([address for address in addresses if await self._is_named(address, entry.name)])

    async def _is_named(self, address: Address, name: str) -> bool:
        if address.is_loopback:
            return True
        names = await self._look_up(address.reverse_pointer, "PTR")
        return any(normal_domain(str(each)) == name for each in names)
