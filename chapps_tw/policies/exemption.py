"""Clients that are exempt from the inbound policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from chapps_tw.config.settings import Settings
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.memo import Memoized
from chapps_tw.mail.network import Network, client_address
from chapps_tw.mail.request import PolicyRequest

# Size of the cache of clients, in bytes.
_CACHE_BYTES = 4 << 20

_LOGGED_IN = Decision("DUNNO", Reason.LOGGED_IN, "Exemption")
_TRUSTED = Decision("DUNNO", Reason.TRUSTED_NETWORK, "Exemption")
_WHITELISTED = Decision("DUNNO", Reason.HELO_WHITELISTED, "HeloWhitelist")


class Exemption:
    """Exempts authenticated clients, trusted networks and the HELO whitelist from the inbound policies.

    :param whitelisted: whether the client of a request is on the HELO whitelist.
    """

    def __init__(self, settings: Settings, whitelisted: Callable[[PolicyRequest], bool]) -> None:
        self._whitelisted = whitelisted
        is_trusted = partial(_is_in, networks=settings.chapps.trusted_networks)
        self._is_trusted = Memoized(is_trusted, _CACHE_BYTES).__getitem__

    def of(self, request: PolicyRequest) -> Decision | None:
        """Return the decision that replaces those of the inbound policies; ``None`` if the client is not exempt."""
        if request.get("sasl_username"):
            return _LOGGED_IN
        if self._is_trusted(request.get("client_address")):
            return _TRUSTED
        return _WHITELISTED if self._whitelisted(request) else None


def _is_in(text: str, networks: Iterable[Network]) -> bool:
    address = client_address(text)
    return address is not None and any(address in network for network in networks)
