"""The settings as the text of a chapps.ini."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chapps_tw.config.load import options
from chapps_tw.config.settings import Settings
from chapps_tw.config.values import Secret, plain

_HEAD = """\
# CHAPPS-TW configuration. A line that begins with # or ; is a comment.
# An environment variable CHAPPS_<SECTION>_<OPTION> wins over what stands here.
"""

_LISTENERS = """\
# Other listeners: any policies, in any order, at any Twisted endpoint. When there is one such section,
# only these listen, and listen_address, listen_port and listen of the policies above mean nothing.
# [Listener submission]
# listen = unix:/run/chapps/submission
# policies = SenderDomainAuthPolicy OutboundQuotaPolicy
"""


def render(settings: Settings) -> str:
    """Every option with its help as a comment, its value from the file or the environment.

    Of a secret that the environment gives, or the name of its file, that of the file is written: where
    secrets are kept is the admin's choice. Loading the text in the same environment gives the same settings.
    """
    lines = [_HEAD]
    for section in settings.sections:
        lines += _section(f"[{section.section}]", section, settings.overridden)
    lines.append(_LISTENERS)
    for listener in settings.own_listeners:
        lines += _section(f"[Listener {listener.name}]", listener, {})
    return "\n".join(lines)


def _section(title: str, section: Any, overridden: Mapping[tuple[str, str], str]) -> list[str]:
    lines = [title]
    found = dict(options(type(section)))
    secrets = [name for name, metadata in found.items() if metadata["parse"] is Secret]
    for name, metadata in found.items():
        text = _as_text(getattr(section, name), metadata["joint"])
        if name.removesuffix("_file") in secrets:
            text = overridden.get((section.section, name), text)
        lines += [f"# {metadata['help']}", f"{name} = {text}".rstrip()]
    return [*lines, ""]


def _as_text(value: Any, joint: str) -> str:
    if isinstance(value, frozenset):
        value = tuple(sorted(value))
    if isinstance(value, tuple):
        return joint.join(map(str, value))
    return plain(value) if isinstance(value, float) else str(value)
