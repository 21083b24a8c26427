"""What tests make once, and keep in the cache of the user."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """Return a file or directory of the cache.

    :param make: makes it at a path, if it is not there.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chapps-tests"
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / name
    with (cache / f"{name}.lock").open("w") as lock:
        # Another process may be making it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            new = cache / f"{name}.new"
            shutil.rmtree(new, ignore_errors=True)
            make(new)
            new.rename(path)
    return path
