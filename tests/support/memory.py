"""Measuring memory."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable


def taken(fill: Callable[[], None]) -> int:
    """Return the bytes that a call leaves allocated."""
    # Exclude existing objects, so that the collection is fast.
    gc.freeze()
    tracemalloc.start()
    try:
        fill()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.unfreeze()
