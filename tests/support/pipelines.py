"""What pipelines need in tests of other parts."""

from __future__ import annotations

from collections.abc import Sequence

from chapps_tw.interfaces.state import Assumption


async def confirmed(assumptions: Sequence[Assumption]) -> bool:
    """Find all assumptions right."""
    return True
