"""The list of exemptions: its text in the live state, and who is on it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from ipaddress import ip_network

from chapps_tw.interfaces.book import Exemption
from chapps_tw.mail.addresses import normal_name
from chapps_tw.mail.network import client_address
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.policies.inbound import domain_of

# Begin of the digests of texts in this form.
_FORM = "1:"

# Bits of an address, by IP version.
_BITS = {4: 32, 6: 128}


def encode(exemptions: Sequence[Exemption]) -> str:
    """Return the text of a list."""
    return json.dumps(exemptions, separators=(",", ":"))


def decode(text: str) -> tuple[Exemption, ...]:
    """Return the list of a text that :func:`encode` returned."""
    return tuple(Exemption(*row) for row in json.loads(text))


def digest_of(text: str) -> str:
    """Return the digest of a text: the same text has the same one in each process."""
    return _FORM + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def is_digest(text: str) -> bool:
    """Return whether this version of the service can read the text with this digest."""
    return text.startswith(_FORM)


class ExemptionList:
    """Finds the exemption of a request. The cost does not depend on the number of exemptions.

    :param fold_case: ``[CHAPPS] fold_case``.
    :ivar scopes: the scopes of all exemptions.
    """

    def __init__(self, exemptions: Iterable[Exemption], fold_case: bool) -> None:
        self._fold_case = fold_case
        self.scopes: dict[str, _Scope] = {}
        for each in exemptions:
            # An invalid network, written to the database directly, exempts nobody.
            with suppress(ValueError):
                self.scopes.setdefault(each.scope, _Scope()).add(each)

    def find(self, request: PolicyRequest, scope: str, now: float) -> Exemption | None:
        """Return an exemption that is in force; ``None`` if there is none.

        :param scope: as in :class:`~chapps_tw.interfaces.book.Exemption`.
        :param now: epoch seconds.
        """
        candidates = self.scopes[scope].candidates(request, self._fold_case) if scope in self.scopes else ()
        return next((each for each in candidates if each is not None and now < each.until), None)


class _Scope:
    """The exemptions of one scope. Of several for the same value, only the one that ends last is kept."""

    def __init__(self) -> None:
        # By IP version and prefix length, then by the bits of the prefix.
        self._networks: dict[tuple[int, int], dict[int, Exemption]] = {}
        # By kind, then by value.
        self._names: dict[str, dict[str, Exemption]] = {"sender": {}, "sender_domain": {}, "recipient": {}}

    def add(self, exemption: Exemption) -> None:
        """Add an exemption. An unknown kind is ignored.

        :raises ValueError: if its network is invalid.
        """
        if exemption.kind != "client":
            names = self._names.get(exemption.kind, {})
            if _is_longer(exemption, names.get(exemption.value)):
                names[exemption.value] = exemption
            return
        network = ip_network(exemption.value, strict=False)
        table = self._networks.setdefault((network.version, network.prefixlen), {})
        bits = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
        if _is_longer(exemption, table.get(bits)):
            table[bits] = exemption

    def candidates(self, request: PolicyRequest, fold_case: bool) -> Iterator[Exemption | None]:
        """Return the exemptions of the client, the sender and the recipient, whether in force or not."""
        names = self._names
        if self._networks:
            yield from self._of_client(request.get("client_address"))
        if names["sender"]:
            yield names["sender"].get(normal_name(request.get("sender"), fold_case))
        if names["sender_domain"]:
            yield from self._of_domain(domain_of(request.get("sender")))
        if names["recipient"]:
            yield names["recipient"].get(normal_name(request.get("recipient"), fold_case))

    def _of_client(self, text: str) -> Iterator[Exemption | None]:
        address = client_address(text)
        if address is None:
            return
        number, bits = int(address), _BITS[address.version]
        for (version, length), table in self._networks.items():
            if version == address.version:
                yield table.get(number >> (bits - length))

    def _of_domain(self, domain: str) -> Iterator[Exemption | None]:
        domains = self._names["sender_domain"]
        yield domains.get(domain)
        while domain:
            yield domains.get(f".{domain}")
            domain = domain.partition(".")[2]


def _is_longer(exemption: Exemption, other: Exemption | None) -> bool:
    return other is None or exemption.until > other.until
