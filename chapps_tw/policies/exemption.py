"""Whose mail the inbound policies are not asked about."""

from __future__ import annotations

from collections.abc import Callable

from chapps_tw.config.settings import Settings
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.memo import Memoized
from chapps_tw.mail.network import client_address
from chapps_tw.mail.request import PolicyRequest

# Bytes for the clients that came before.
_CACHE_BYTES = 4 << 20

_LOGGED_IN = Decision("DUNNO", Reason.LOGGED_IN, "Exemption")
_TRUSTED = Decision("DUNNO", Reason.TRUSTED_NETWORK, "Exemption")
_WHITELISTED = Decision("DUNNO", Reason.HELO_WHITELISTED, "HeloWhitelist")


class Exemption:
    """Lets those through that SPF and greylisting are not meant for.

    :param whitelisted: whether a request's client is on the HELO whitelist.
    """

    def __init__(self, settings: Settings, whitelisted: Callable[[PolicyRequest], bool]) -> None:
        self._networks = settings.chapps.trusted_networks
        self._whitelisted = whitelisted
        self._is_trusted = Memoized(self._look, _CACHE_BYTES).__getitem__

    def of(self, request: PolicyRequest) -> Decision | None:
        """The decision that stands for those of the inbound policies; ``None`` where they are to be asked."""
        attributes = request.attributes
        if attributes.get("sasl_username"):
            return _LOGGED_IN
        if self._is_trusted(attributes.get("client_address", "")):
            return _TRUSTED
        return _WHITELISTED if self._whitelisted(request) else None

    def _look(self, text: str) -> bool:
        address = client_address(text)
        return address is not None and any(address in network for network in self._networks)
