"""The processes of a service with ``[CHAPPS] processes``: which there are, and who serves which connection."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.support.servers.service import Service

_READY = re.compile(r"process (\d+) answers Postfix \(pid (\d+)\)")


def workers(service: Service) -> dict[int, int]:
    """Return the process ids of the workers that are or were ready, the last one of each number."""
    return {int(number): int(pid) for number, pid in _READY.findall(service.log())}


def is_running(pid: int) -> bool:
    """Whether a process exists, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def connections(service: Service, listener: str = "outbound") -> Counter[int]:
    """Return how many connections each worker has, by its number."""
    ours = f":{service.ports[listener]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(ours) and row[3] == "01"}
    found: Counter[int] = Counter()
    for number, pid in workers(service).items():
        with suppress(OSError):
            found[number] = sum(_target(each) in inodes for each in Path(f"/proc/{pid}/fd").iterdir())
    return found


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""
