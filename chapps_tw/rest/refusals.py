"""The answers to exceptions."""

from __future__ import annotations

from werkzeug.exceptions import HTTPException, MethodNotAllowed

from chapps_tw.interfaces.book import BookConflict, BookUnavailable
from chapps_tw.interfaces.history import HistoryUnavailable
from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.rest.routing import Refusal


def refusal_of(error: BaseException | None) -> Refusal | None:
    """Return the answer to an exception; ``None`` for an unexpected one."""
    if isinstance(error, HTTPException):
        return _routing_refusal(error)
    if isinstance(error, (StateUnavailable, BookUnavailable, HistoryUnavailable)):
        return Refusal(503, str(error) or "The service is unavailable.")
    if isinstance(error, BookConflict):
        return Refusal(409, str(error))
    return error if isinstance(error, Refusal) else None


def _routing_refusal(error: HTTPException) -> Refusal:
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return Refusal(405, f"Only {allowed} is allowed here.", {"Allow": [allowed]})
    return Refusal(404, "There is no such page.")
