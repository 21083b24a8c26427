"""Making room for a unix socket: one that a killed process left behind is in the way, one in use stays."""

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
    """Remove the socket at a path if nobody accepts connections on it; inside, nobody else does the same.

    Who does the listening is asked by connecting. A lock with a process id in it, as Twisted makes, would tell
    of whatever process has got that id since.

    :raises OSError: when the directory or the socket cannot be used.
    """
    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    try:
        # Two that start at once would each find that the other does not accept connections yet.
        fcntl.flock(directory, fcntl.LOCK_EX)
        if _is_left_behind(path):
            os.unlink(path)
        yield
    finally:
        os.close(directory)


def _is_left_behind(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        # One whose queue is full would have us wait.
        probe.setblocking(False)
        refused = probe.connect_ex(path) == errno.ECONNREFUSED
    # A file of another kind refuses as well.
    return refused and stat.S_ISSOCK(os.lstat(path).st_mode)
