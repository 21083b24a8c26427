"""Control groups: what a program starts below its own one stays apart from what others do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tests.support.servers.common import wait_until


class ControlGroup:
    """A group below the one of this process, in the unified hierarchy.

    :param name: followed by the number of this process.
    """

    def __init__(self, name: str) -> None:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        (top, *_) = [mount[1] for mount in mounts if mount[2] == "cgroup2"]
        (own,) = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
        self._path = Path(top, own.lstrip("/"), f"{name}-{os.getpid()}")
        self._path.mkdir(exist_ok=True)

    def command(self, command: Sequence[str]) -> list[str]:
        """Return a command that runs another one in the group, as the same process."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._path / "cgroup.procs"), *command]

    def remove(self) -> None:
        """Remove it, when its processes have ended.

        :raises TimeoutError: if they do not.
        """
        events = self._path / "cgroup.events"
        wait_until(lambda: "populated 0" in events.read_text(), f"the end of all processes in {self._path}")
        for directory, _, _ in os.walk(self._path, topdown=False):
            os.rmdir(directory)
