"""Rendering of settings as chapps.ini."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chapps_tw.config.load import options
from chapps_tw.config.settings import Settings
from chapps_tw.config.values import Secret, plain

_HEAD = """\
# CHAPPS-TW configuration. Lines that start with # or ; are comments.
# An environment variable CHAPPS_<SECTION>_<OPTION> overrides the value in this file.
# A change of an option marked [restart] takes effect after a restart, any other with systemctl reload (SIGHUP).
"""

_LISTENERS = """\
# Custom listeners: any policies, in any order, on any Twisted endpoint. If there is such a section, the default
# listeners are disabled: listen_address, listen_port and listen of the policies above have no effect.
# [Listener submission]
# listen = unix:/run/chapps/submission
# policies = SenderDomainAuthPolicy OutboundQuotaPolicy
"""


_LIMITS = """\
# Limits on mail of any kind, which RateLimitPolicy applies. Each has a section with its name; per, amount and window
# are required. This one defers clients that did not log in, when 100 messages came from their network in 10 minutes:
# [Limit flood]
# per = client_network
# unit = messages
# amount = 100
# window = 10m
# match = sasl_username:empty, client_address:!192.0.2.0/24
# action = defer
"""


def render(settings: Settings) -> str:
    """Return chapps.ini with every option, its help as a comment, and its effective value.

    For secrets and names of their files that the environment sets, the value of the old file is written: the
    administrator decides where secrets are stored. Loading the text in the same environment gives the same settings.
    """
    lines = [_HEAD]
    for section in settings.sections:
        lines += _section(f"[{section.section}]", section, settings.overridden)
    lines.append(_LIMITS)
    for limit in settings.limits:
        lines += _section(f"[Limit {limit.name}]", limit, {})
    lines.append(_LISTENERS)
    for listener in settings.own_listeners:
        lines += _section(f"[Listener {listener.name}]", listener, {})
    return "\n".join(lines)


def _section(title: str, section: Any, overridden: Mapping[tuple[str, str], str]) -> list[str]:
    lines = [title]
    found = dict(options(type(section)))
    secrets = [name for name, metadata in found.items() if metadata["parse"] is Secret]
    for name, metadata in found.items():
        text = as_text(getattr(section, name), metadata["separator"])
        if name.removesuffix("_file") in secrets:
            text = overridden.get((section.section, name), text)
        mark = " [restart]" if metadata["restart"] else ""
        lines += [f"# {metadata['help']}{mark}", f"{name} = {text}".rstrip()]
    return [*lines, ""]


def as_text(value: Any, separator: str) -> str:
    """Return the value of an option as it is written."""
    if isinstance(value, frozenset):
        value = tuple(sorted(value))
    if isinstance(value, tuple):
        return separator.join(map(str, value))
    return plain(value) if isinstance(value, float) else str(value)
