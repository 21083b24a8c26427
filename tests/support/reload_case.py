"""Running services whose configuration is changed."""

from __future__ import annotations

import signal
import unittest
from collections.abc import Sequence

from tests.support.servers.common import wait_until
from tests.support.servers.service import Options, Service

LOADED = "Configuration loaded from "
REFUSED = "The configuration was not loaded, and nothing has changed: "


class ReloadCase(unittest.TestCase):
    def reload(self, service: Service, options: Options) -> str:
        """Change the file, send SIGHUP, and return the line that the log has then."""
        service.write_config(options)
        return self.hang_up(service)

    def hang_up(self, service: Service) -> str:
        """Send SIGHUP, and return the line that the log has then."""
        count = len(told(service))
        service.signal(signal.SIGHUP)
        wait_until(lambda: len(told(service)) > count, "the line in the log")
        return told(service)[-1]


def told(service: Service) -> Sequence[str]:
    """Return what the log tells of configurations that were read again."""
    lines = [line for line in service.log().splitlines() if LOADED in line or REFUSED in line]
    return [line.partition("#")[2].partition("] ")[2] for line in lines]
