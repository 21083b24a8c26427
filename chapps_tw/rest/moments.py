"""Points in time and durations in requests, and points in time in answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NamedTuple

from pydantic import PlainValidator, WithJsonSchema
from pydantic.config import JsonDict

from chapps_tw.interfaces.writable_book import MAX_WINDOW
from chapps_tw.mail.durations import PATTERN, parse_duration

# Up to the year 5138.
_LATEST: Final = 10**11 - 1
_EPOCH: Final = r"[0-9]{1,11}(\.[0-9]{1,9})?"

_FORMS: Final = (
    "must be epoch seconds, a time with its zone such as 2026-10-01T18:00:00+08:00, or a duration such as 90m or 3d "
    "(s, m, h, d, w)"
)


class When(NamedTuple):
    """A point in time, or its distance from now.

    :ivar seconds: epoch seconds; the distance if ``relative``.
    """

    seconds: float
    relative: bool

    def ahead(self, now: float) -> float:
        """Return the epoch seconds, if a distance leads into the future."""
        return now + self.seconds if self.relative else self.seconds

    def ago(self, now: float) -> float:
        """Return the epoch seconds, if a distance leads into the past."""
        return now - self.seconds if self.relative else self.seconds


def iso(seconds: float | None) -> str | None:
    """Return epoch seconds as text (ISO 8601, UTC); ``None`` for 0, which is never, and for what is no time."""
    if not seconds:
        return None
    try:
        text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None
    return text.replace("+00:00", "Z")


def with_iso(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return fields, and beside those with these names, which are epoch seconds, ``<name>_iso`` as text."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        found[name] = value
        if name in names:
            found[f"{name}_iso"] = iso(value)
    return found


def parse_moment(value: Any) -> When:
    """Parse a number or a text (ISO 8601 with a zone, epoch seconds, or a duration).

    :raises ValueError: with the accepted forms.
    """
    if isinstance(value, str):
        return _parse_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise ValueError(_FORMS)
    return When(float(value), False)


def _parse_text(text: str) -> When:
    duration = parse_duration(text)
    if duration is not None:
        return When(float(duration.seconds), True)
    if re.fullmatch(_EPOCH, text):
        return When(float(text), False)
    try:
        moment = datetime.fromisoformat(text.upper())
        zoned = moment.tzinfo is not None
        seconds = moment.timestamp() if zoned else 0.0
    except (ValueError, OverflowError):
        raise ValueError(_FORMS) from None
    if not zoned:
        raise ValueError("must say its time zone, such as 2026-10-01T18:00:00+08:00, or end in Z for UTC")
    if not 0 <= seconds <= _LATEST:
        raise ValueError("must be between the years 1970 and 5138")
    return When(seconds, False)


def parse_window(value: Any) -> int:
    """Parse seconds, or a duration such as ``10m``.

    :raises ValueError: with the accepted forms.
    """
    duration = parse_duration(value) if isinstance(value, str) else None
    seconds = duration.seconds if duration is not None else value
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 1 <= seconds <= MAX_WINDOW:
        raise ValueError("must be 1 to 31622400 seconds, or a duration up to 366d such as 90s, 10m, 1h, 1d or 2w")
    return seconds


def _moment(description: str) -> WithJsonSchema:
    forms: list[JsonDict] = [
        {"type": "number", "minimum": 0, "maximum": _LATEST},
        {"type": "string", "format": "date-time"},
        {"type": "string", "pattern": f"^({PATTERN}|{_EPOCH})$"},
    ]
    return WithJsonSchema({"description": description, "anyOf": list(forms), "examples": ["3d"]})


_ABOUT: Final = "Epoch seconds, a time with its zone (ISO 8601), or a duration such as `90m` or `3d`"

LATER: Final = f"{_ABOUT} from now."
EARLIER: Final = f"{_ABOUT} before now."

Later = Annotated[When, PlainValidator(parse_moment), _moment(LATER)]
Earlier = Annotated[When, PlainValidator(parse_moment), _moment(EARLIER)]
Window = Annotated[
    int,
    PlainValidator(parse_window),
    WithJsonSchema(
        {
            "description": "Length of the rolling window: seconds, or a duration such as `10m`, `1h` or `1d`, "
            "up to 366 days.",
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MAX_WINDOW},
                {"type": "string", "pattern": r"^[1-9][0-9]{0,2}[smhd]$"},
            ],
            "examples": ["1h"],
        }
    ),
]
