"""Writing chapps.ini so that a reader sees the old file or the new one, never half of it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from chapps_tw.config import ConfigError, Settings
from chapps_tw.config_file import render


def write(settings: Settings, path: str) -> Path:
    """Write the effective configuration: every option, its help as a comment.

    The file is readable by its owner only. One that is replaced keeps its owner where the process
    may do that, and a symbolic link goes on pointing to it.

    :returns: the absolute path of the file.
    :raises ConfigError: when it cannot be written; the file that was there is untouched then.
    """
    target = Path(path).resolve()
    try:
        _replace(target, render(settings).encode("utf-8"))
    except OSError as error:
        raise ConfigError([f"{target}: cannot be written: {error.strerror or error}"]) from error
    return target


def _replace(target: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            _keep_owner(target, descriptor)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
    _sync(target.parent)


def _keep_owner(target: Path, descriptor: int) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):
        before = target.stat()
        os.fchown(descriptor, before.st_uid, before.st_gid)


def _sync(directory: Path) -> None:
    """Make the new name survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
