"""A wall clock that can be set while programs run by it: libfaketime (Debian: libfaketime)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.support.servers.common import missing

_LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")


class WallClock:
    """The time of day of the programs that are started with its :attr:`environment`. Durations stay true.

    :param folder: where its file is.
    :raises unittest.SkipTest: without libfaketime; with ``CI=true`` that is a failure instead.
    """

    def __init__(self, folder: Path) -> None:
        found = [path for each in _LIBRARIES for path in Path("/").glob(each.removeprefix("/"))]
        if not found:
            raise missing("libfaketime is not installed")
        self._library = found[0]
        self._file = folder / "offset"
        self.set(0)

    def set(self, ahead: int) -> None:
        """Set it, by so many seconds ahead of the true time."""
        new = self._file.with_name("new")
        new.write_text(f"{ahead:+d}\n")
        new.replace(self._file)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a program's environment must have besides."""
        return {
            # With libc's malloc: jemalloc, which Redis uses, asks for the time before libfaketime can tell it.
            "LD_PRELOAD": f"{self._library}:libc.so.6",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
