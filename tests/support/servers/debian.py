"""The root of another Debian, with its Postfix: made once, and kept in the cache of the user."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tests.support.servers.common import missing, program, require_namespaces

_RELEASE = "trixie"
_PACKAGES = "postfix,libsasl2-modules"
_SOURCE = f"deb http://deb.debian.org/debian {_RELEASE} main"


@cache
def debian_13() -> Path:
    """Return the root directory of a Debian 13 with Postfix.

    :raises unittest.SkipTest: if it is not there and cannot be made; with ``CI=true`` the test fails instead.
    """
    require_namespaces()
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chapps-tests"
    cached.mkdir(parents=True, exist_ok=True)
    root = cached / f"debian-{_RELEASE}"
    with (cached / "lock").open("w") as lock:
        # Another worker may be making it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _make(root)
    return root


def _make(root: Path) -> None:
    mmdebstrap = program("mmdebstrap")
    new = root.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    command = [mmdebstrap, "--quiet", "--variant=minbase", f"--include={_PACKAGES}", _RELEASE, str(new), _SOURCE]
    made = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if made.returncode:
        raise missing(f"Debian {_RELEASE} cannot be installed: {made.stderr[-2000:]}")
    new.rename(root)
