"""Removes the stale unix socket of a killed process before listening; a socket in use is left alone."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def room_for(path: str) -> Iterator[None]:
    """Remove the socket at a path if no process accepts connections on it, and lock its directory meanwhile.

    A connection attempt shows whether it is in use. A lock file with a process ID, as Twisted writes, is unreliable:
    another process may have that ID by now.

    :raises OSError: if the directory or the socket cannot be used.
    """
    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    try:
        # Without the lock, two processes that start together could take each other's new socket for a stale one.
        fcntl.flock(directory, fcntl.LOCK_EX)
        if _is_stale(path):
            os.unlink(path)
        yield
    finally:
        os.close(directory)


def _is_stale(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        # connect() blocks while the backlog is full.
        probe.setblocking(False)
        refused = probe.connect_ex(path) == errno.ECONNREFUSED
    # Connecting to a file of another type is refused as well.
    return refused and stat.S_ISSOCK(os.lstat(path).st_mode)
