"""What a worker logs: lines without the time, which the main process adds."""

from __future__ import annotations

import sys

from twisted.logger import FileLogObserver, LogEvent, eventAsText


def observer() -> FileLogObserver:
    """Return the log observer of a worker, for ``twistd --logger``."""
    return FileLogObserver(sys.stdout, _line)


def _line(event: LogEvent) -> str:
    return eventAsText(event, includeTimestamp=False) + "\n"
