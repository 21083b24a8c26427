"""Durations as people write them, such as ``10m``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

PATTERN: Final = r"[1-9][0-9]{0,7}[smhdw]"
"""The form of a duration, as a regular expression."""

_UNITS: Final = {
    "s": (1, "second"), "m": (60, "minute"), "h": (3600, "hour"), "d": (86400, "day"), "w": (604800, "week"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time.

    :ivar text: in the form of :data:`PATTERN`.
    :ivar seconds: its length, at least 1.
    :ivar words: for people, such as ``10 minutes``.
    """

    text: str
    seconds: int
    words: str

    def __str__(self) -> str:
        return self.text


def parse_duration(text: str) -> Duration | None:
    """Parse a whole number with a unit: ``90s``, ``10m``, ``1h``, ``1d`` or ``2w``.

    :returns: ``None`` if the text has another form.
    """
    if not re.fullmatch(PATTERN, text):
        return None
    count, (length, name) = text[:-1], _UNITS[text[-1]]
    return Duration(text, int(count) * length, f"{count} {name}" + ("s" if count != "1" else ""))
