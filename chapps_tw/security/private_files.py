"""Files that hold a secret or a state: made for the right owner, and why one cannot be opened."""

from __future__ import annotations

import errno
import os
import pwd
import stat
import tempfile
from contextlib import suppress
from pathlib import Path


def create(path: str | Path, flags: int = os.O_WRONLY) -> int:
    """Make a file of mode 0600 and open it. One that root makes belongs to the owner of its directory.

    An admin's command as root must not lock the service's user out.

    :returns: the descriptor.
    :raises FileExistsError: when it is there, if only as a symbolic link.
    :raises OSError: when it cannot be made.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    hand_over(descriptor, Path(path).parent)
    return descriptor


def write_whole(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file of mode 0600 so that a reader sees the old one or the new one, never half of it.

    One that is replaced keeps its owner where the process may do that. A new one that root makes belongs to the
    owner of its directory.

    :param replace: whether what is there may be replaced.
    :raises FileExistsError: when it may not.
    :raises OSError: when it cannot be written; what was there is untouched then.
    """
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            _keep_owner(path, descriptor)
            file.flush()
            os.fsync(descriptor)
        if replace:
            os.replace(draft, path)
        else:
            os.link(draft, path)
            os.unlink(draft)
    except BaseException:
        os.unlink(draft)
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


def open_to_all(path: str | Path) -> bool:
    """Whether every account may read a file. One that is not there, or hidden from us, is taken for private."""
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False


def make_directory(path: str | Path) -> None:
    """Make a directory, and those above it, of mode 0700 where they are not there. Who owns them: as in :func:`create`.

    :raises OSError: when that cannot be done.
    """
    wanted = Path(path)
    missing = [each for each in (wanted, *wanted.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            hand_over(descriptor, each.parent)
        finally:
            os.close(descriptor)
    if not wanted.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def hand_over(descriptor: int, directory: Path) -> None:
    """Give a file to the owner of a directory, where root runs this."""
    if os.geteuid() == 0:
        # Some file systems know no owners, and root of a container may not give everything away.
        with suppress(OSError):
            owner = os.stat(directory)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def explain(path: str | Path, error: OSError) -> str:
    """Why a file cannot be opened, and what would help: the last part of a sentence.

    :param path: of the file, where the error does not name one.
    """
    text = error.strerror or str(error)
    # Of two names, the second is the one that was to be made.
    named = error.filename2 or error.filename
    at = Path(os.fsdecode(named) if isinstance(named, str | bytes) else path)
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{text}: {_whose(at, Path(path))}"
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


def _whose(path: Path, told: Path) -> str:
    """Whom a file belongs to, or the directory that hides it, and how to get at it.

    :param told: the file that was named already.
    """
    me = _name(os.geteuid())
    for place in (path, *path.parents):
        with suppress(OSError):
            return f"{'it' if place == told else place} {_remedy(place, os.stat(place), me)}"
    return f"{path} is hidden from {me}"


def _remedy(place: Path, found: os.stat_result, me: str) -> str:
    if found.st_uid == os.geteuid():
        return f"belongs to {me}, who is kept out by its mode {stat.S_IMODE(found.st_mode):04o}; change it with chmod"
    owner = _name(found.st_uid)
    whose = f"belongs to {owner}, and this runs as {me}"
    mine = place.parent.stat().st_uid == os.geteuid()
    if not stat.S_ISDIR(found.st_mode) and (mine or found.st_uid == 0):
        return f"{whose}; give it away (as root: chown {me} {place}), or run this as {owner}"
    if found.st_uid == 0:
        return f"{whose}; let {me} in there, or run this as root"
    return f"{whose}; run this as {owner} (sudo -u {owner})"


def _name(uid: int) -> str:
    """The name of a user, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
