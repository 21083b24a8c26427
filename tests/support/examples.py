"""How many examples are made up in a test."""

from __future__ import annotations

import os


def examples(count: int) -> int:
    """``count`` times ``CHAPPS_TEST_EXAMPLES``, a number that is 1 unless set; at least 1."""
    return max(1, round(count * float(os.environ.get("CHAPPS_TEST_EXAMPLES", "1"))))
