"""How many examples Hypothesis tries: a number of each test's own, so that a run takes about the same time always."""

from __future__ import annotations

import os


def examples(number: int) -> int:
    """That many, or as many times more as ``TEST_EXAMPLES`` says, which may be a fraction."""
    return max(1, round(number * float(os.environ.get("TEST_EXAMPLES", "1"))))
