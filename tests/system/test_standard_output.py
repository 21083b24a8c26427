"""The running service whose standard output nobody reads."""

from __future__ import annotations

import os
import signal
import sys
import threading
import unittest
from collections.abc import Sequence

from tests.support.policy_client import outbound
from tests.support.servers.common import wait_until
from tests.support.servers.service import Service

CLEAN = (0, -signal.SIGTERM)

_ONTO_STDOUT = "import os, sys; os.dup2(int(sys.argv[1]), 1); os.execv(sys.argv[2], sys.argv[2:])"

# More lines than a pipe has room for.
QUESTIONS = 900


class StandingReaderTests(unittest.TestCase):
    def setUp(self) -> None:
        self.reader, writer = os.pipe()
        self.addCleanup(os.close, self.reader)
        self.service = Service({"Log": {"file": "-"}})
        self.addCleanup(self.service.remove)
        prefix: Sequence[str] = [sys.executable, "-c", _ONTO_STDOUT, str(writer)]
        self.service.start(prefix=prefix, pass_fds=[writer])
        os.close(writer)
        self.service.wait_ready()

    def ask_much(self) -> None:
        with self.service.client() as client:
            for _ in range(QUESTIONS):
                client.ask(outbound())
            client.send(b"nonsense\n\n")
            self.assertIn("4.3.0", client.answer())
        with self.service.client() as client:
            client.ask(outbound())
        self.assertEqual(self.service.http("/health")[0], 200)

    def read_all(self) -> bytes:
        with os.fdopen(os.dup(self.reader), "rb") as stream:
            return stream.read()

    def test_everything_is_answered_and_no_line_is_lost_that_is_read_later(self) -> None:
        self.ask_much()
        found: list[bytes] = []
        reading = threading.Thread(target=lambda: found.append(self.read_all()))
        reading.start()
        wait_until(lambda: self.service.http("/health")[0] == 200, "health")
        self.assertIn(self.service.stop(), CLEAN)
        reading.join()
        lines = found[0].decode().splitlines()
        # The one that is no request has no decision.
        self.assertEqual(sum(" listener=outbound policy=" in line for line in lines), QUESTIONS + 1)
        self.assertEqual(sum(" sent " in line and "[-]" not in line for line in lines), 1)
        self.assertIn("Server Shut Down.", lines[-1])

    def test_the_stop_does_not_wait_for_the_reader(self) -> None:
        self.ask_much()
        self.assertIn(self.service.stop(), CLEAN)
