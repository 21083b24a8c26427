"""Root directories of Debian releases: made once, and kept in the cache of the user."""

from __future__ import annotations

import subprocess
from functools import cache, partial
from pathlib import Path

from tests.support.cache import cached
from tests.support.servers.common import missing, program, require_namespaces


@cache
def debian_13() -> Path:
    """Return the root directory of a Debian 13 with Postfix. See :func:`debian_root`."""
    return debian_root("trixie", "postfix", "libsasl2-modules")


def debian_root(release: str, *packages: str) -> Path:
    """Return the root directory of a minimal Debian with more packages, which nobody may write.

    :param release: such as ``bookworm``.
    :raises unittest.SkipTest: if it is not there and cannot be made; with ``CI=true`` the test fails instead.
    """
    require_namespaces()
    return cached("+".join((release, *packages)), partial(_make, release, packages))


def _make(release: str, packages: tuple[str, ...], root: Path) -> None:
    source = f"deb http://deb.debian.org/debian {release} main"
    command = [program("mmdebstrap"), "--quiet", "--variant=minbase", f"--include={','.join(packages)}"]
    made = subprocess.run(
        [*command, release, str(root), source], capture_output=True, text=True, timeout=600, check=False
    )
    if made.returncode:
        raise missing(f"Debian {release} cannot be installed: {made.stderr[-2000:]}")
