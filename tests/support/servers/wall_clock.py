"""A wall clock that can be set while programs run, with libfaketime (Debian: libfaketime)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.support.servers.common import missing

_LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")


class WallClock:
    """The time of day for programs that are started with its :attr:`environment`. Monotonic clocks are unaffected.

    :param folder: directory of its file.
    :raises unittest.SkipTest: without libfaketime; with ``CI=true`` the test fails instead.
    """

    def __init__(self, folder: Path) -> None:
        found = [path for each in _LIBRARIES for path in Path("/").glob(each.removeprefix("/"))]
        if not found:
            raise missing("libfaketime is not installed")
        self._library = found[0]
        self._file = folder / "offset"
        self.set(0)

    def set(self, ahead: int) -> None:
        """Set it ``ahead`` seconds ahead of the real time."""
        new = self._file.with_name("new")
        new.write_text(f"{ahead:+d}\n")
        new.replace(self._file)

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables to add to the environment of a program."""
        return {
            # With malloc of libc: jemalloc, which Redis uses, reads the time before libfaketime is initialized.
            "LD_PRELOAD": f"{self._library}:libc.so.6",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
