"""What a token may do."""

from __future__ import annotations

from chapps_tw.security.tokens import TokenStore


def scope_of(store: TokenStore, token: str) -> str | None:
    """Return the scope of a token, ``None`` if it is unknown."""
    found = store.find(token)
    return found.scope if found else None
