"""Timing of calls in parts that have no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Timer: TypeAlias = Callable[[str], Callable[[Any], Any]]
"""Starts timing an operation. The returned function is called with the outcome, stops the timer, and returns it."""


def no_timer(operation: str) -> Callable[[Any], Any]:
    """A :data:`Timer` that does nothing."""
    return _identity


def _identity(outcome: Any) -> Any:
    return outcome
