"""The number of Hypothesis examples: fixed per test, so that runs take about the same time."""

from __future__ import annotations

import os


def examples(number: int) -> int:
    """Return ``number`` times ``TEST_EXAMPLES``, which may be a fraction and is 1 by default."""
    return max(1, round(number * float(os.environ.get("TEST_EXAMPLES", "1"))))
