"""Inbound requests: whom the mail is for, and who brings it."""

from __future__ import annotations

import re
from ipaddress import ip_network

from chapps_tw.config.settings import Settings
from chapps_tw.mail.addresses import normal_domain, normal_name
from chapps_tw.mail.memo import Memo
from chapps_tw.mail.network import client_address
from chapps_tw.mail.request import Payload, PostfixPolicyRequest

_DEFAULTS = Settings()
_MAX_UNREADABLE_ADDRESS = 64
_UNKNOWN = "unknown"

_networks: Memo[tuple[str, int, int], str] = Memo(8 << 20)
_UNPRINTABLE = re.compile(r"[^!-~]")


class InboundPPR(PostfixPolicyRequest):
    """A policy request about mail to somebody here.

    :param payload: as for :class:`~chapps_tw.mail.request.PostfixPolicyRequest`.
    :param cfg: the settings; ``None`` means the built-in defaults.
    """

    __slots__ = ("_config",)

    _config: Settings

    def __init__(self, payload: Payload, *, cfg: Settings | None = None) -> None:
        super().__init__(payload)
        object.__setattr__(self, "_config", cfg or _DEFAULTS)

    @property
    def recipient_domain(self) -> str:
        """The recipient's domain as lower-case A-labels; ``""`` when there is none.

        It is what stands after the last ``@``: Postfix hands addresses over without their quotes.
        """
        return domain_of(self.get("recipient"))

    @property
    def client_network(self) -> str:
        """The network that stands for the client, such as ``192.0.2.0/24``."""
        return client_network(self.get("client_address"), self._config.grl.ipv4_prefix, self._config.grl.ipv6_prefix)

    @property
    def spf_identities(self) -> tuple[str, str, str]:
        """What SPF is checked for: client address, HELO name, MAIL FROM (``""`` is the null sender)."""
        return self.get("client_address"), self.get("helo_name"), self.get("sender")


def domain_of(address: str) -> str:
    """The domain of a mail address as lower-case A-labels; ``""`` when there is none."""
    _, at, domain = address.rpartition("@")
    return normal_domain(domain) if at else ""


def mail_address(text: str) -> str:
    """An address in the form that greylisting compares and stores.

    All of it is lower case, whatever ``fold_case``: a sender that changes the case of a local part between two
    attempts is the same sender. Every VERP or BATV variation is a sender of its own. Bytes that are no UTF-8
    become escapes, so that every store takes them.
    """
    text = normal_name(text)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def client_network(text: str, ipv4_prefix: int, ipv6_prefix: int) -> str:
    """The network that an address is in, as ``192.0.2.0/24`` or ``2001:db8::/64``.

    :returns: for what is no address, that text, in printable ASCII and shortened.
    """
    wanted = (text, ipv4_prefix, ipv6_prefix)
    network = _networks.get(wanted)
    if network is None:
        network = _network(*wanted)
        _networks.keep(wanted, network)
    return network


def _network(text: str, ipv4_prefix: int, ipv6_prefix: int) -> str:
    address = client_address(text)
    if address is None:
        return _UNPRINTABLE.sub("?", text[:_MAX_UNREADABLE_ADDRESS].lower()) or _UNKNOWN
    prefix = ipv4_prefix if address.version == 4 else ipv6_prefix
    return str(ip_network((address, prefix), strict=False))
