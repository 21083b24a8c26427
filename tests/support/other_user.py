"""Being another user for a while, as an admin's commands and the service are two users."""

from __future__ import annotations

import codecs
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

import pytest

# Found before anybody else is acted as: a Python in root's home cannot be looked into then, and a codec that was not
# found is never looked for again.
for _codec in ("utf-8-sig", "idna", "punycode", "latin-1", "ascii"):
    codecs.lookup(_codec)

NOBODY = 65534
OTHER = 65533

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may be another user, and give files away")


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Give root's rights up, and take them back in the end."""
    os.setresgid(user, user, 0)
    os.setresuid(user, user, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)


@contextmanager
def directory_of(user: int) -> Iterator[Path]:
    """A directory that only this user may look into."""
    # Those of pytest are in one that nobody else may enter.
    path = Path(tempfile.mkdtemp(prefix="chapps-"))
    os.chown(path, user, user)
    try:
        yield path
    finally:
        rmtree(path, ignore_errors=True)
