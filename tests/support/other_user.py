"""Running as another user temporarily: commands of the administrator and the service run as different users."""

from __future__ import annotations

import codecs
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

import pytest

# Loaded in advance: another user may not be able to read a Python in root's home, and a failed lookup of a codec is
# cached.
for _codec in ("utf-8-sig", "idna", "punycode", "latin-1", "ascii"):
    codecs.lookup(_codec)

NOBODY = 65534
OTHER = 65533

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may be another user, and give files away")


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Drop the privileges of root, and regain them at the end."""
    os.setresgid(user, user, 0)
    os.setresuid(user, user, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)


@contextmanager
def directory_of(user: int) -> Iterator[Path]:
    """Yield a directory that only this user can access."""
    # Not below pytest's own directory, which other users cannot enter.
    path = Path(tempfile.mkdtemp(prefix="chapps-"))
    os.chown(path, user, user)
    try:
        yield path
    finally:
        rmtree(path, ignore_errors=True)
