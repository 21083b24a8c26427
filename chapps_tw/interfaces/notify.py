"""Notices, as the HTTP API tests them."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol


class Notifier(Protocol):
    """Sends notices."""

    def test(self) -> Awaitable[Mapping[str, str]]:
        """Send a test to the administrator and to the webhook, as far as they are configured.

        :returns: for each (``admin``, ``webhook``) ``""``, or why it was not taken.
        """
