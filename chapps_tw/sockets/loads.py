"""How many connections each of several processes has, in memory that they share."""

from __future__ import annotations

import mmap
import os
from typing import Final

# Of a process that is not running.
_NONE: Final = 0xFFFFFFFF
_BYTES: Final = 4


class Loads:
    """The numbers of connections, one for each process.

    :ivar descriptor: of the memory, for the processes that share it.
    :param descriptor: of memory that another process has made.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._counts = memoryview(mmap.mmap(descriptor, 0)).cast("I")

    @classmethod
    def of(cls, processes: int) -> Loads:
        """Make the memory for a number of processes, none of which is running."""
        descriptor = os.memfd_create("chapps-loads")
        os.ftruncate(descriptor, _BYTES * processes)
        loads = cls(descriptor)
        for place in range(processes):
            loads.end(place)
        return loads

    def set(self, place: int, connections: int) -> None:
        """Set the number of connections of a process."""
        self._counts[place] = connections

    def end(self, place: int) -> None:
        """Say that a process is not running."""
        self._counts[place] = _NONE

    def is_least(self, place: int) -> bool:
        """Return whether no process that is running has fewer connections."""
        return self._counts[place] <= min(self._counts)
