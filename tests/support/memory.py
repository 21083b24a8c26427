"""How much memory something takes."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable


def taken(fill: Callable[[], None]) -> int:
    """Bytes that something leaves taken."""
    # What was there before need not be looked at again.
    gc.freeze()
    tracemalloc.start()
    try:
        fill()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.unfreeze()
