"""The HELO whitelist: clients that skip the inbound policies, by HELO name and address."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

from chapps_tw.mail.addresses import normal_domain
from chapps_tw.mail.network import Address, HeloEntry, client_address
from chapps_tw.mail.request import PolicyRequest


class HeloWhitelist:
    """Whitelist entries that are confirmed by forward-confirmed reverse DNS.

    :param entries: as configured. An entry takes effect once :meth:`verify` has confirmed it; entries
        for 127.0.0.1 and ::1 take effect at once.
    :param look_up: takes a name and ``A``, ``AAAA`` or ``PTR``; returns the records as text. Raises
        OSError if DNS does not answer.
    :param warn: logs a sentence.
    :param before: another list; what it has confirmed of these entries needs no confirmation here.
    """

    def __init__(
        self,
        entries: Sequence[HeloEntry],
        look_up: Callable[[str, str], Awaitable[Sequence[object]]],
        warn: Callable[[str], None],
        before: HeloWhitelist | None = None,
    ) -> None:
        self._entries = tuple(entries)
        self._look_up = look_up
        self._warn = warn
        self._allowed: dict[str, dict[HeloEntry, frozenset[Address]]] = {}
        for entry in self._entries:
            if entry.address is not None and entry.address.is_loopback:
                self._allow(entry, frozenset((entry.address,)))
            elif before is not None and (addresses := before.confirmed(entry)):
                self._allow(entry, addresses)

    def confirmed(self, entry: HeloEntry) -> frozenset[Address]:
        """Return the addresses that are confirmed for an entry."""
        return self._allowed.get(entry.name, {}).get(entry, frozenset())

    def matches(self, request: PolicyRequest) -> bool:
        """Return whether the client's HELO name is on the list and its address is confirmed for that name."""
        if not self._allowed:
            return False
        found = self._allowed.get(normal_domain(request.get("helo_name")))
        if found is None:
            return False
        address = client_address(request.get("client_address"))
        return any(address in addresses for addresses in found.values())

    async def verify(self) -> bool:
        """Verify all entries: the name must resolve to the address, and the address back to the name.

        An entry that fails is logged and disabled. An entry for which DNS does not answer keeps its state.

        :returns: whether DNS answered for all entries.
        """
        answered = True
        for entry in self._entries:
            if entry.address is not None and entry.address.is_loopback:
                continue
            try:
                addresses = await self._look_up_addresses(entry)
            except OSError as error:
                self._warn(f"helo_whitelist: {entry} could not be verified: {error}")
                answered = False
                continue
            self._allow(entry, addresses)
            if not addresses:
                self._warn(f"helo_whitelist: {entry} is ignored: its forward and reverse DNS do not match")
        return answered

    def _allow(self, entry: HeloEntry, addresses: frozenset[Address]) -> None:
        of_name = {**self._allowed.get(entry.name, {}), entry: addresses}
        self._allowed[entry.name] = of_name

    async def _look_up_addresses(self, entry: HeloEntry) -> frozenset[Address]:
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
