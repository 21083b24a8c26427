"""Writing chapps.ini so that a reader sees the old file or the new one, never half of it."""

from __future__ import annotations

from pathlib import Path

from chapps_tw.config.render import render
from chapps_tw.config.settings import ConfigError, Settings
from chapps_tw.security.private_files import explain, write_atomically

EDITED = "The file had been changed since it was read: what was changed there is gone, and was never in force."


class Rewriter:
    """Writes the configuration that a process runs with over the file that it came from.

    :param default: the file where the configuration came from none.
    """

    def __init__(self, settings: Settings, default: str) -> None:
        self._settings = settings
        self._path = settings.path or default
        self._known = settings.content

    def write(self) -> tuple[str, list[str]]:
        """Write it, as :func:`write` does.

        :returns: the absolute path of the file, and remarks: :data:`EDITED`, where somebody has changed it meanwhile.
        :raises ConfigError: when it cannot be written; the file that was there is untouched then.
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
    """Write the effective configuration: every option, its help as a comment.

    The file is readable by its owner only. One that is replaced keeps its owner where the process
    may do that, and a symbolic link goes on pointing to it. A new one that root makes belongs to the
    owner of its directory.

    :returns: the absolute path of the file.
    :raises ConfigError: when it cannot be written; the file that was there is untouched then.
    """
    try:
        target = Path(path).resolve()
        write_atomically(target, render(settings).encode("utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be written: {explain(path, error)}"]) from error
    except RuntimeError:
        # What Path.resolve raises before Python 3.13.
        raise ConfigError([f"{path}: cannot be written: it is a symbolic link to itself"]) from None
    return target
