"""What keeps a configuration from working here: endpoints, addresses, files, the database's URL.

Nothing is opened, made or asked for, so that this can be run beside the service.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from chapps_tw.application.endpoints import no_address, parse_endpoint
from chapps_tw.config.checks import Finding, Place, places, port_and_interface, unix_path
from chapps_tw.config.settings import ConfigError, Settings
from chapps_tw.config.values import Secret
from chapps_tw.database.engine import database_url, own_url
from chapps_tw.security.private_files import explain

# File systems in which the kernel alone makes files.
_KERNEL = frozenset(("proc", "sysfs", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs", "configfs", "devpts"))

# An error's number, and the file or directory that it is about.
Problem = tuple[int, Path]


def findings(settings: Settings) -> Iterator[Finding]:
    """What is wrong with the settings on this machine, for this user."""
    for place in places(settings):
        yield from _of_endpoint(place)
    yield from _of_database_url(settings)
    yield from _of_certificates(settings)
    yield from _of_files(settings)


def _of_endpoint(place: Place) -> Iterator[Finding]:
    if place.endpoint.startswith("systemd:"):
        # Its sockets are there only where systemd starts the service.
        return
    try:
        # An endpoint keeps the reactor, and does nothing with it before it listens.
        parse_endpoint(place.endpoint, None)
    except ValueError as error:
        yield place.finding(str(error))
        return
    port, interface = port_and_interface(place.endpoint)
    if port > 65535:
        yield place.finding("must have a port from 1 to 65535")
    elif interface and not _is_ours(interface):
        shown = place.value if place.option == place.address else interface
        yield Finding(place.section, place.address, shown, no_address(interface), place.others)
    elif path := unix_path(place.endpoint):
        problem = _no_room_for(Path(path))
        # What is under /run is made when the service starts.
        if problem and not (problem[0] == errno.ENOENT and problem[1].is_relative_to("/run")):
            yield place.finding(f"cannot be used: {_explained(problem)}")


def _is_ours(interface: str) -> bool:
    """Whether an address can be listened at; on any port, since the service may have that one already."""
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((interface, 0))
        except OSError:
            return False
    return True


def _of_database_url(settings: Settings) -> Iterator[Finding]:
    url = settings.adapter.db_url
    if url:
        try:
            own_url(url)
        except ValueError as error:
            yield Finding("PolicyConfigAdapter", "db_url", Secret(url), str(error))


def _of_certificates(settings: Settings) -> Iterator[Finding]:
    redis = settings.redis
    if settings.uses_redis and redis.tls and redis.ca_file:
        from chapps_tw.state.redis.server import authorities

        try:
            authorities(redis.ca_file)
        except ValueError as error:
            yield Finding("Redis", "ca_file", redis.ca_file, str(error), (("Redis", "tls"),))


def _of_files(settings: Settings) -> Iterator[Finding]:
    data_dir = Path(settings.chapps.data_dir)
    yield from _unusable("CHAPPS", "data_dir", data_dir / "state.sqlite3", data_dir, makes_parents=True)
    if settings.state.path and not settings.uses_redis:
        yield from _unusable("State", "path", Path(settings.state.path), data_dir, makes_parents=True)
    if settings.api.token_file and settings.api.listen and settings.api.auth == "token":
        yield from _unusable("API", "token_file", Path(settings.api.token_file), data_dir)
    if settings.log.file not in ("", "-"):
        yield from _unusable("Log", "file", Path(settings.log.file), data_dir)
    try:
        url = database_url(settings.adapter, "", settings.chapps.data_dir)
    except ConfigError:
        return
    if url.get_backend_name() == "sqlite" and (settings.adapter.db_url or Path(settings.adapter.db_name).is_absolute()):
        option = "db_url" if settings.adapter.db_url else "db_name"
        yield from _unusable("PolicyConfigAdapter", option, Path(str(url.database)), data_dir, makes_parents=True)


def _unusable(
    section: str, option: str, path: Path, data_dir: Path, *, makes_parents: bool = False
) -> Iterator[Finding]:
    """Whether a file can neither be written nor made.

    :param data_dir: is made at the start.
    :param makes_parents: so are the directories above the file.
    """
    problem = _problem(path, makes_parents or path.parent == data_dir)
    why = _explained(problem) if problem else _of_kernel(path)
    if why:
        shown = str(data_dir) if option == "data_dir" else str(path)
        others = (("CHAPPS", "data_dir"),)
        yield Finding(section, option, shown, f"cannot be used: {why}", others)


def _of_kernel(path: Path) -> str:
    """That a file is where nobody can make one, although root is let in there."""
    there = next(each for each in (path, *path.parents) if os.path.lexists(each))
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()]
    except OSError:
        return ""
    # The deepest, and of those the last, is what is seen there.
    over = [(len(mount[1]), place, mount[2]) for place, mount in enumerate(mounts) if there.is_relative_to(mount[1])]
    kind = max(over, default=(0, 0, ""))[2]
    if kind not in _KERNEL or not there.is_dir():
        return ""
    return f"{there} is a view into the kernel ({kind}), where no file can be made; name another place"


def _explained(problem: Problem) -> str:
    number, path = problem
    return explain(path, OSError(number, os.strerror(number), str(path)))


def _problem(path: Path, makes_parents: bool) -> Problem | None:
    try:
        if path.exists():
            return (errno.EISDIR, path) if path.is_dir() else _forbidden(path, os.W_OK)
    except OSError as error:
        return error.errno or errno.EIO, path
    return _no_room_for(path, makes_parents)


def _no_room_for(path: Path, makes_parents: bool = False) -> Problem | None:
    """What keeps a file from being made, whether or not it is there."""
    directory = path.parent
    while makes_parents and not os.path.lexists(directory) and directory != directory.parent:
        directory = directory.parent
    try:
        if not directory.exists():
            return errno.ENOENT, path
        return _forbidden(directory, os.W_OK | os.X_OK) if directory.is_dir() else (errno.ENOTDIR, directory)
    except OSError as error:
        return error.errno or errno.EIO, path


def _forbidden(path: Path, wanted: int) -> Problem | None:
    if os.access(path, wanted):
        return None
    # The two have different remedies.
    return (errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES), path
