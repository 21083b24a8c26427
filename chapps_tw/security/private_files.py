"""Private files, for secrets and state: creates them for the right owner, and explains why one cannot be opened."""

from __future__ import annotations

import errno
import os
import pwd
import stat
import tempfile
from contextlib import suppress
from pathlib import Path


def create(path: str | Path, flags: int = os.O_WRONLY) -> int:
    """Create and open a file of mode 0600. When root creates it, it belongs to the owner of its directory.

    So a command that an admin runs as root does not lock out the service's user.

    :returns: the file descriptor.
    :raises FileExistsError: if the path exists, even as a symbolic link.
    :raises OSError: if it cannot be created.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    hand_over(descriptor, Path(path).parent)
    return descriptor


def write_atomically(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file of mode 0600 atomically: a reader sees the old content or the new, never a part.

    A replaced file keeps its owner, if the process may set it. A new file that root creates belongs to the
    owner of its directory.

    :param replace: whether an existing file may be replaced.
    :raises FileExistsError: if the file exists and ``replace`` is false.
    :raises OSError: if the file cannot be written; an existing file is unchanged.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            _keep_owner(path, descriptor)
            file.flush()
            os.fsync(descriptor)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
            os.unlink(temporary)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync(path.parent)


def _keep_owner(path: Path, descriptor: int) -> None:
    with suppress(PermissionError):
        try:
            before = path.stat()
        except FileNotFoundError:
            hand_over(descriptor, path.parent)
        else:
            os.fchown(descriptor, before.st_uid, before.st_gid)


def _sync(directory: Path) -> None:
    """Make the new name survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_world_readable(path: str | Path) -> bool:
    """Return whether all users may read a file. False if it is missing or inaccessible."""
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False


def make_directory(path: str | Path) -> None:
    """Create a directory and its missing parents with mode 0700. Ownership is as for :func:`create`.

    :raises OSError: if that fails.
    """
    directory = Path(path)
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            hand_over(descriptor, each.parent)
        finally:
            os.close(descriptor)
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def hand_over(descriptor: int, directory: Path) -> None:
    """When running as root, change a file's owner to that of a directory."""
    if os.geteuid() == 0:
        # Some file systems have no owners, and root in a container may lack the permission.
        with suppress(OSError):
            owner = os.stat(directory)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def explain(path: str | Path, error: OSError) -> str:
    """Explain why a file cannot be opened, and the remedy, as the last part of a sentence.

    :param path: of the file, in case the error does not name one.
    """
    text = error.strerror or str(error)
    # Of two names, the second is the file to be created.
    named = error.filename2 or error.filename
    at = Path(os.fsdecode(named) if isinstance(named, str | bytes) else path)
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{text}: {_explain_denied(at, Path(path))}"
    if error.errno == errno.ENOENT:
        gone = [each for each in at.parents if not os.path.lexists(each)]
        return f"{text}: there is no directory {gone[0]}; make it first" if gone else text
    if error.errno == errno.EROFS:
        return f"{text}: name another place, or let the service's systemd unit write there (ReadWritePaths)"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{text}: make room there"
    if error.errno in (errno.ENXIO, errno.EPIPE):
        return f"{text}: nobody reads what is written there; start its reader"
    return text


def _explain_denied(path: Path, named: Path) -> str:
    """Say who owns the file, or the directory that makes it inaccessible, and the remedy.

    :param named: the file that the sentence has named already.
    """
    user = _name(os.geteuid())
    for place in (path, *path.parents):
        with suppress(OSError):
            return f"{'it' if place == named else place} {_remedy(place, os.stat(place), user)}"
    return f"{path} is not accessible to {user}"


def _remedy(place: Path, status: os.stat_result, user: str) -> str:
    if status.st_uid == os.geteuid():
        return f"belongs to {user}, but its mode {stat.S_IMODE(status.st_mode):04o} denies access; change it with chmod"
    owner = _name(status.st_uid)
    whose = f"belongs to {owner}, and this runs as {user}"
    is_own_directory = place.parent.stat().st_uid == os.geteuid()
    if not stat.S_ISDIR(status.st_mode) and (is_own_directory or status.st_uid == 0):
        return f"{whose}; change its owner (as root: chown {user} {place}), or run this as {owner}"
    if status.st_uid == 0:
        return f"{whose}; give {user} access to it, or run this as root"
    return f"{whose}; run this as {owner} (sudo -u {owner})"


def _name(uid: int) -> str:
    """Return the name of a user, or the uid if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
