"""What requests and charges are for the accounts in memory."""

from __future__ import annotations

from typing import Final, TypeAlias

from chapps_tw.interfaces.outcome import Outcome

MAX_UNITS: Final = 2**53
"""Higher amounts and limits count as this, so that sums are exact in both stores."""

Claim: TypeAlias = tuple[Outcome, int, int, int]
"""What a charge would do: its outcome; what its window contains if the request is accepted, and if it is refused; the
new cost of the message. A plain tuple, because one is made for each charge."""


Request: TypeAlias = tuple[bytes, bytes, bool, float]
"""A request of a message: the key of the message; the digest of the recipient that it names, empty if it names none or
no charge needs it; ``whole`` and ``reserve`` of the message. A plain tuple for the same reason."""
