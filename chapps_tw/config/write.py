"""Atomic replacement of chapps.ini."""

from __future__ import annotations

from pathlib import Path

from chapps_tw.config.render import render
from chapps_tw.config.settings import ConfigError, Settings
from chapps_tw.security.private_files import explain, write_atomically

EDITED = "The file was modified after it was loaded. Those modifications were overwritten and never took effect."


class Rewriter:
    """Writes the running configuration to the file from which it was loaded.

    :param default: path to use if it was not loaded from a file.
    """

    def __init__(self, settings: Settings, default: str) -> None:
        self._settings = settings
        self._path = settings.path or default
        self._known = settings.content

    def write(self) -> tuple[str, list[str]]:
        """Write the file with :func:`write`.

        :returns: the absolute path of the file, and remarks: :data:`EDITED` if it was modified since it was loaded.
        :raises ConfigError: if it cannot be written; the old file is unchanged.
        """
        edited = self._content() != self._known
        target = write(self._settings, self._path)
        self._known = self._content()
        return str(target), [EDITED] if edited else []

    def _content(self) -> bytes:
        try:
            return Path(self._path).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise ConfigError([f"{self._path}: cannot be read: {explain(self._path, error)}"]) from error


def write(settings: Settings, path: str) -> Path:
    """Write the effective configuration: every option, with its help as a comment.

    Only the owner can read the file. A replaced file keeps its owner if the process is allowed to set it. Symbolic
    links are followed. A new file created by root gets the owner of its directory.

    :returns: the absolute path of the file.
    :raises ConfigError: if it cannot be written; the old file is unchanged.
    """
    try:
        target = Path(path).resolve()
        write_atomically(target, render(settings).encode("utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be written: {explain(path, error)}"]) from error
    except RuntimeError:
        # Path.resolve raises it before Python 3.13.
        raise ConfigError([f"{path}: cannot be written: it is a symbolic link to itself"]) from None
    return target
