"""Names that no name server answers for: whoever looks them up delays nothing else."""

from __future__ import annotations

import signal
import threading
import unittest
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.paths import ROOT
from tests.support.servers.common import wait_until
from tests.support.servers.service import CLEAN, Service

# As many as the threads of a reactor.
TESTS = 10

# Takes the place of silent name servers: Python imports it at its start.
SILENCE = """\
import os, socket, threading

found = socket.getaddrinfo

def getaddrinfo(host, *values, **options):
    if str(host).endswith(".example.net"):
        os.close(os.open(f"{os.environ['LOOKUPS']}/{threading.get_ident()}", os.O_CREAT))
        threading.Event().wait()
    return found(host, *values, **options)

socket.getaddrinfo = getaddrinfo
"""

NOTICES = {
    "webhook_events": "node_started",
    "webhook": "https://hooks.example.net/",
    "webhook_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}


class SilentNamesTests(unittest.TestCase):
    def test_lookups_that_hang_delay_neither_another_configuration_nor_a_stop(self) -> None:
        directory = Path(self.enterContext(TemporaryDirectory()))
        (directory / "sitecustomize.py").write_text(SILENCE)
        lookups = directory / "lookups"
        lookups.mkdir()
        service = Service({"Notify": NOTICES})
        self.addCleanup(service.remove)
        service.start({"PYTHONPATH": f"{directory}:{ROOT}", "LOOKUPS": str(lookups)}).wait_ready()
        threads = [threading.Thread(target=self.send_a_test, args=[service]) for _ in range(TESTS)]
        for thread in threads:
            self.addCleanup(thread.join)
            thread.start()
        wait_until(lambda: len([*lookups.iterdir()]) >= TESTS, "lookups that hang")
        self.assertEqual(service.http("/live/config/reload/", "POST")[0], 200)
        service.signal(signal.SIGTERM)
        self.assertIn(service.stop(), CLEAN)

    @staticmethod
    def send_a_test(service: Service) -> None:
        # The service closes the connection when it stops.
        with suppress(OSError):
            service.http("/notify/test/", "POST")
