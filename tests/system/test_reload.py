"""SIGHUP: another configuration takes effect between two requests."""

from __future__ import annotations

import signal
import unittest
from collections.abc import Sequence

from tests.support.policy_client import outbound
from tests.support.servers.common import wait_until
from tests.support.servers.service import Options, Service, started

LOADED = "Configuration loaded from "
REFUSED = "The configuration was not loaded, and nothing has changed: "

STRANGER = outbound(sasl_username="nobody", sender="nobody@example.com")


class ReloadCase(unittest.TestCase):
    def reload(self, service: Service, options: Options) -> str:
        """Change the file, send SIGHUP, and return the line that the log has then."""
        service.write_config(options)
        return self.hang_up(service)

    def hang_up(self, service: Service) -> str:
        count = len(told(service))
        service.signal(signal.SIGHUP)
        wait_until(lambda: len(told(service)) > count, "the line in the log")
        return told(service)[-1]


def told(service: Service) -> Sequence[str]:
    """Return what the log tells of configurations that were read again."""
    lines = [line for line in service.log().splitlines() if LOADED in line or REFUSED in line]
    return [line.partition("#")[2].partition("] ")[2] for line in lines]


def message(text: str) -> Options:
    return {
        "OutboundQuotaPolicy": {"unknown_user_message": f"REJECT {text}"},
        "SenderDomainAuthPolicy": {"rejection_message": f"REJECT {text}"},
    }


class TakingEffectTests(ReloadCase):
    def test_messages_and_limits_are_new_for_the_next_question_on_the_same_connection(self) -> None:
        service = started(self)
        with service.client() as client:
            self.assertRegex(client.ask(STRANGER), "^REJECT Rejected - ")
            line = self.reload(service, message("go away"))
            self.assertEqual(client.ask(STRANGER), "REJECT go away")
        self.assertIn(
            "changed: [OutboundQuotaPolicy] unknown_user_message, [SenderDomainAuthPolicy] rejection_message", line
        )
