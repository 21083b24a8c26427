"""Our listeners, as Postfix would name them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from math import ceil
from typing import Final, NamedTuple

from chapps_tw.config.checks import port_and_interface, unix_path
from chapps_tw.config.settings import Listener, Settings
from chapps_tw.policies.registry import Registry
from chapps_tw.policies.spec import Direction
from chapps_tw.policies.stages import Need

_ANYWHERE: Final = ("", "0.0.0.0")
# Seconds by which Postfix should wait longer than we take.
_ALLOWANCE: Final = 3


class OurListener(NamedTuple):
    """A listener of the configuration.

    :ivar port: -1 for a unix socket, or if systemd hands over a socket that the configuration does not describe.
    :ivar interface: its address; ``""`` is every address.
    :ivar path: of a unix socket, else ``""``.
    :ivar is_explicit: whether somebody configured it: a default listener may be left unused.
    :ivar needs: the stages that its policies need.
    :ivar deadline: seconds that it takes at most.
    :ivar accepts_with_ok: the section whose ``acceptance_message`` is OK, else ``""``.
    :ivar is_shadow: whether all of its policies that refuse strangers are in shadow mode.
    """

    name: str
    policies: tuple[str, ...]
    port: int
    interface: str
    path: str
    is_explicit: bool
    directions: frozenset[Direction]
    needs: tuple[Need, ...]
    deadline: float
    accepts_with_ok: str
    is_shadow: bool

    @property
    def is_outbound(self) -> bool:
        """Whether it refuses clients that have not logged in."""
        return Direction.OUTBOUND in self.directions

    @property
    def is_inbound(self) -> bool:
        """Whether it judges only mail from the world."""
        return Direction.INBOUND in self.directions and not self.is_outbound

    @property
    def endpoint(self) -> str:
        """Its address in the notation of Postfix; of a unix socket, relative to the usual queue directory."""
        if self.path:
            return f"unix:{self.path.removeprefix('/var/spool/postfix/')}"
        host = "127.0.0.1" if self.interface in (*_ANYWHERE, "::") else self.interface
        return f"inet:[{host}]:{self.port}" if ":" in host else f"inet:{host}:{self.port}"

    @property
    def call(self) -> str:
        """The restriction to write."""
        wait = ceil(self.deadline) + _ALLOWANCE
        action = "default_action=DUNNO" if self.is_inbound else "{ default_action = 451 4.3.0 Try again later }"
        return f"check_policy_service {{ {self.endpoint}, timeout={wait}s, {action} }}"

    def is_part_of(self, others: Iterable[OurListener]) -> bool:
        """Return whether it is a default listener, and another one has all of its policies and more."""
        return not self.is_explicit and any(set(self.policies) < set(other.policies) for other in others)

    def listens_on(self, host: str, port: int) -> bool:
        """Return whether it answers at a host and port, as seen from this machine."""
        if port != self.port or self.interface == "::":
            return port == self.port
        address = _address_of(host)
        if address is None:
            # Of names, only one is known.
            return host != "localhost" or self.interface in _ANYWHERE or _is_loopback(self.interface)
        return address.version == 4 if self.interface in _ANYWHERE else address == _address_of(self.interface)

    def listens_at(self, path: str) -> bool:
        """Return whether it answers on a unix socket."""
        return bool(self.path) and posixpath.normpath(path) == posixpath.normpath(self.path)


def _address_of(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address_of(host)
    return address is not None and address.is_loopback


def listeners_of(settings: Settings, registry: Registry, more_needs: Iterable[Need] = ()) -> list[OurListener]:
    """Return the listeners of a configuration.

    :param more_needs: of quotas, which only the database knows.
    """
    more = tuple(more_needs)
    return [_listener(each, settings, registry, more) for each in settings.listeners]


def _listener(listener: Listener, settings: Settings, registry: Registry, more: tuple[Need, ...]) -> OurListener:
    specs = [registry[name] for name in listener.policies]
    sections = [settings.section(spec.section) for spec in specs]
    port, interface = _address(listener, settings)
    refusing = [each for each, spec in zip(sections, specs, strict=True) if spec.direction is Direction.OUTBOUND]
    quota = settings.oqp.section in listener.policies
    return OurListener(
        listener.name,
        listener.policies,
        port,
        interface,
        unix_path(listener.listen),
        not listener.origin or listener.origin in (settings.sda.section, settings.rlp.section),
        frozenset(spec.direction for spec in specs),
        registry.needs(listener.policies, settings) + (more if quota else ()),
        settings.chapps.request_timeout + sum(max(0.0, spec.extra_time(settings)) for spec in specs),
        _accepting(sections),
        bool(refusing) and all(each.mode == "shadow" for each in refusing),
    )


def _address(listener: Listener, settings: Settings) -> tuple[int, str]:
    """Return port and address; of a socket that systemd hands over, those that its section would use itself."""
    if not listener.listen.startswith("systemd:") or not listener.origin:
        port, interface = port_and_interface(listener.listen)
        # Twisted's default.
        return port, interface or ("::" if "tcp6:" in listener.listen else "")
    section = next(each for each in settings.sections if each.section == listener.origin)
    return section.listen_port, "127.0.0.1" if section.listen_address == "localhost" else section.listen_address


def _accepting(sections: Sequence[object]) -> str:
    for section in sections:
        if str(getattr(section, "acceptance_message", "")).partition(" ")[0] == "OK":
            return str(getattr(section, "section", ""))
    return ""
