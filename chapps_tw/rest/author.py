"""Who makes the current request: recorded as the author of its changes."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

AUTHOR: Final[ContextVar[str]] = ContextVar("author", default="")
"""The name of the request's token, ``""`` without one. A coroutine has the value of the one that started it."""
