"""A service whose state file has pages that make no sense."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from chapps_tw.state.sqlite.file import PAGE
from tests.support.api_case import APITestCase
from tests.support.policy_client import outbound
from tests.support.servers.service import PATIENT, Service

USERS = 600


def spoil(path: Path) -> None:
    """Write nonsense over one leaf of the cached values: one of those with what the book says of users."""
    with closing(sqlite3.connect(path)) as db:
        query = "SELECT pageno FROM dbstat WHERE name = 'value' AND pagetype = 'leaf' ORDER BY pageno"
        pages = [row[0] for row in db.execute(query)]
    content = path.read_bytes()
    starts = [(page - 1) * PAGE for page in pages]
    users = [start for start in starts if b"4:7:useruser" in content[start : start + PAGE]]
    with path.open("r+b") as file:
        file.seek(users[len(users) // 2])
        file.write(b"\xa5" * PAGE)


class DamagedStateTests(APITestCase):
    def ask_all(self, service: Service) -> list[str]:
        client = service.client("outbound")
        try:
            return [client.ask(outbound(sasl_username=f"user{number}")) for number in range(USERS)]
        finally:
            client.close()

    def test_who_is_not_in_them_is_answered_and_ready_says_what_helps(self) -> None:
        service = self.run_service(PATIENT, {"SenderDomainAuthPolicy": {"mode": "shadow"}})
        refused = set(self.ask_all(service))
        service.stop()
        spoil(service.directory / "state.sqlite3")
        service.start().wait_ready()
        answers = self.ask_all(service)
        deferred = [answer for answer in answers if answer not in refused]
        self.assertGreater(len(deferred), 0)
        self.assertLess(len(deferred), 60)
        status, body = service.http("/ready")
        self.assertEqual(status, 503)
        self.assertIn("state.sqlite3 is damaged", str(body))
        self.assertIn("move the file away", str(body))
        self.assertEqual(service.log("is damaged").count("is damaged"), 1)
        self.assertNotIn("can be used again", service.log())
