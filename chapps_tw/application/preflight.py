"""Checks of a configuration on this machine: endpoints, addresses, files, the URL of the database.

They open, create and query nothing, so that they can run beside the service.
"""

from __future__ import annotations

import errno
import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from twisted.internet.protocol import Factory

from chapps_tw.application.endpoints import has_certificate, no_address, parse_endpoint, tls_factory
from chapps_tw.config.checks import Finding, Place, places, port_and_interface, unix_path
from chapps_tw.config.settings import ConfigError, Settings
from chapps_tw.config.values import Secret
from chapps_tw.database.engine import database_url, own_url
from chapps_tw.security.private_files import explain

# File systems in which only the kernel creates files.
_KERNEL = frozenset(("proc", "sysfs", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs", "configfs", "devpts"))

# An error number (errno), and the file or directory.
Problem = tuple[int, Path]


def findings(settings: Settings) -> Iterator[Finding]:
    """Yield what is wrong with the settings on this machine, for this user."""
    for place in places(settings):
        yield from _of_endpoint(place)
    yield from _of_database_url(settings)
    yield from _of_certificates(settings)
    yield from _of_files(settings)
    yield from _of_templates(settings)


def without_default_quota(settings: Settings) -> Iterator[str]:
    """Yield a sentence if ``default_quota`` names no quota. Only an existing SQLite file is looked into."""
    name = settings.oqp.default_quota
    url = database_url(settings.adapter, "", settings.chapps.data_dir)
    if not name or url.get_backend_name() != "sqlite":
        return
    try:
        with closing(sqlite3.connect(f"file:{quote(str(url.database))}?mode=ro", uri=True, timeout=1.0)) as book:
            found = book.execute("SELECT 1 FROM quotas WHERE name = ?", (name,)).fetchone()
    except sqlite3.Error:
        return
    if found is None:
        yield f"[OutboundQuotaPolicy] default_quota = {name}: there is no such quota in {url.database}; add it"


def _of_endpoint(place: Place) -> Iterator[Finding]:
    if place.endpoint.startswith("systemd:"):
        # Its sockets exist only when systemd starts the service.
        return
    try:
        if has_certificate(place.endpoint):
            tls_factory(place.endpoint, Factory())
        else:
            # An endpoint does not use its reactor before it listens.
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
        # Directories below /run are created when the service starts.
        if problem and not (problem[0] == errno.ENOENT and problem[1].is_relative_to("/run")):
            yield place.finding(f"cannot be used: {_explained(problem)}")


def _is_ours(interface: str) -> bool:
    """Return whether this machine has an address. Tests any port, since the service may use the configured one."""
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
        yield from _of_authorities("Redis", "ca_file", redis.ca_file, "tls")
    if settings.notify.relay_tls != "none" and settings.notify.relay_ca_file:
        yield from _of_authorities("Notify", "relay_ca_file", settings.notify.relay_ca_file, "relay_tls")


def _of_authorities(section: str, option: str, path: str, used: str) -> Iterator[Finding]:
    from chapps_tw.sockets.authorities import authorities

    try:
        authorities(path)
    except ValueError as error:
        yield Finding(section, option, path, str(error), ((section, used),))


def _of_templates(settings: Settings) -> Iterator[Finding]:
    directory = settings.notify.templates
    if not directory:
        return
    if not os.path.isdir(directory) or not os.access(directory, os.R_OK | os.X_OK):
        yield Finding("Notify", "templates", directory, "must be a directory that the service can read")
        return
    from chapps_tw.notify.samples import template_problems

    for problem in template_problems(settings.notify):
        yield Finding("Notify", "templates", directory, f"contains a template that cannot be used: {problem}")


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
    """Check that a file can be written or created.

    :param data_dir: created at the start.
    :param makes_parents: whether the parent directories of the file are created too.
    """
    problem = _problem(path, makes_parents or path.parent == data_dir)
    why = _explained(problem) if problem else _of_kernel(path)
    if why:
        shown = str(data_dir) if option == "data_dir" else str(path)
        others = (("CHAPPS", "data_dir"),)
        yield Finding(section, option, shown, f"cannot be used: {why}", others)


def _of_kernel(path: Path) -> str:
    """Return an explanation if a file is where nobody can create files, although root has permission."""
    there = next(each for each in (path, *path.parents) if os.path.lexists(each))
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()]
    except OSError:
        return ""
    # The deepest mount point is visible, and of several mounts there the last.
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
    """Return what prevents the creation of a file, whether or not it exists."""
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
    # These two have different remedies.
    return (errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES), path
