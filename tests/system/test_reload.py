"""SIGHUP: another configuration takes effect between two requests."""

from __future__ import annotations

import random
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.load import Load
from tests.support.policy_client import encode, inbound, outbound
from tests.support.reload_case import LOADED, REFUSED, ReloadCase, told
from tests.support.servers.common import wait_until
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import PATIENT, Options, Service, started

CONNECTIONS = 64


def stranger() -> Mapping[str, str]:
    return outbound(sasl_username="nobody", sender="nobody@example.com")


def either() -> Mapping[str, str]:
    """A message of ann, who may send, or of somebody who may not."""
    return random.choice((outbound, stranger))()


def message(text: str) -> Options:
    return {"SenderDomainAuthPolicy": {"rejection_message": f"REJECT {text}"}}


class TakingEffectTests(ReloadCase):
    def test_a_message_is_new_for_the_next_question_on_the_same_connection(self) -> None:
        service = started(self)
        with service.client() as client:
            self.assertRegex(client.ask(stranger()), "^REJECT Rejected - ")
            line = self.reload(service, message("go away"))
            self.assertEqual(client.ask(stranger()), "REJECT go away")
        self.assertRegex(line, rf"{LOADED}.*: changed: \[SenderDomainAuthPolicy\] rejection_message$")

    def test_a_mode_a_list_and_policies_that_decide_from_memory_are_new_for_the_next_question(self) -> None:
        service = started(self)
        service.add_domain("example.org", greylist=True)
        mail = {"recipient": "bob@example.org"}
        with service.client() as out, service.client("greylisting") as mx:
            friend = outbound(sasl_username="ann", sender="ann+x@example.com")
            foreign = outbound(sender="x@example.org")
            self.assertEqual([out.ask(friend), out.ask(foreign)[:6]], ["DUNNO", "REJECT"])
            self.assertRegex(mx.ask(inbound(**mail)), "^DEFER_IF_PERMIT ")
            trusted = {"CHAPPS": {"trusted_networks": "198.51.100.0/24"}}
            self.reload(service, {"SenderDomainAuthPolicy": {"mode": "shadow"}, **trusted})
            self.assertEqual([out.ask(friend), out.ask(foreign), mx.ask(inbound(**mail))], ["DUNNO"] * 3)
            self.reload(service, {"SenderDomainAuthPolicy": {"mode": "enforce"}, "CHAPPS": {"trusted_networks": ""}})
            self.assertRegex(out.ask({**foreign, "instance": "new"}), "^REJECT ")
            self.assertRegex(mx.ask(inbound(**mail, sender="other@example.net")), "^DEFER_IF_PERMIT ")

    def test_a_limit_and_the_quota_of_everybody_are_new_for_the_next_question(self) -> None:
        limit = {"per": "everybody", "unit": "messages", "amount": 1, "window": "1h"}
        service = started(self, {"Limit all": limit, "SenderDomainAuthPolicy": {"own_address": True}})
        with service.client("limits") as limits, service.client() as out:
            self.assertEqual([limits.ask(inbound())[:5] for _ in range(2)], ["DUNNO", "DEFER"])
            bob = {"sasl_username": "bob@example.org", "sender": "bob@example.org"}
            self.assertRegex(out.ask(outbound(**bob)), "^REJECT .*may not send mail here")
            self.reload(service, {"Limit all": {"amount": 3}, "OutboundQuotaPolicy": {"default_quota": "100000 a day"}})
            self.assertEqual([limits.ask(inbound())[:5] for _ in range(3)], ["DUNNO", "DUNNO", "DEFER"])
            self.assertEqual(out.ask(outbound(**bob)), "DUNNO")
            self.reload(
                service,
                {"OutboundQuotaPolicy": {"default_quota": ""}, "SenderDomainAuthPolicy": {"own_address": False}},
            )
            self.assertRegex(out.ask(outbound(**bob)), "^REJECT .*not allowed to send mail as")

    def test_a_request_that_is_processed_ends_with_the_former_policies(self) -> None:
        redis = RedisProcess(Path(self.enterContext(TemporaryDirectory(prefix="redis-"))))
        self.addCleanup(redis.stop)
        redis.start()
        service = started(self, {**PATIENT, "Redis": {"server": "127.0.0.1", "port": redis.port}, **message("before")})
        with service.client() as client, service.client() as other:
            redis.hang()
            self.addCleanup(redis.go_on)
            client.send(encode(stranger()))
            wait_until(lambda: 'chapps_in_flight{listener="outbound"} 1' in metrics(service), "the request under way")
            self.reload(service, message("after"))
            other.send(encode(stranger()))
            redis.go_on()
            self.assertEqual([client.answer(), other.answer()], ["REJECT before", "REJECT after"])

    def test_what_needs_a_restart_is_named_and_all_else_takes_effect(self) -> None:
        service = started(self)
        with service.client() as client:
            late: Options = {"GreylistingPolicy": {"listen_port": 1}, "Redis": {"password": "hidden"}}
            self.reload(service, {**message("go away"), **late})
            self.assertEqual(client.ask(stranger()), "REJECT go away")
        log = service.log("take effect after a restart")
        self.assertIn("These take effect after a restart: [Redis] password, [GreylistingPolicy] listen_port", log)
        self.assertNotIn("hidden", log)
        with service.client("greylisting") as client:
            self.assertEqual(client.ask(inbound()), "DUNNO")

    def test_a_wrong_file_changes_nothing_and_is_told_in_one_sentence(self) -> None:
        service = started(self)
        with service.client() as client:
            line = self.reload(service, {**message("go away"), "OutboundQuotaPolicy": {"warn_at": 101}})
            self.assertRegex(client.ask(stranger()), "^REJECT Rejected - ")
            problem = rf"{service.config}: line [0-9]+: \[OutboundQuotaPolicy\] warn_at = '101': must be "
            self.assertRegex(line, f"^{REFUSED}{problem}")
            self.assertNotIn("Traceback", service.log())
            self.reload(service, {"OutboundQuotaPolicy": {"warn_at": 70}})
            self.assertEqual(client.ask(stranger()), "REJECT go away")

    def test_a_file_that_is_gone_changes_nothing(self) -> None:
        service = started(self)
        service.config.unlink()
        self.assertIn(f"{service.config}: cannot be read: ", self.hang_up(service))
        with service.client() as client:
            self.assertEqual(client.ask(outbound()), "DUNNO")

    def test_the_service_manager_is_told(self) -> None:
        service = Service()
        self.addCleanup(service.remove)
        path = service.directory / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(path))
            notify.settimeout(60)
            service.launch({"NOTIFY_SOCKET": str(path)})
            self.assertEqual(notify.recv(4096), b"READY=1")
            before = time.monotonic_ns() // 1000
            self.hang_up(service)
            begin = dict(line.split(b"=") for line in notify.recv(4096).splitlines())
            self.assertEqual(begin[b"RELOADING"], b"1")
            self.assertLess(before, int(begin[b"MONOTONIC_USEC"]))
            self.assertEqual(notify.recv(4096), b"READY=1")


class UnderLoadTests(ReloadCase):
    def test_64_connections_notice_nothing_but_the_new_answers_of_20_configurations(self) -> None:
        service = started(self, {**PATIENT, **message("0")})
        with Load([service], CONNECTIONS, question=either) as load:
            load.wait_until_asked(200)
            last = 0.0
            for number in range(1, 21):
                begin = time.monotonic()
                self.reload(service, message(str(number)))
                end = time.monotonic()
                self.assertLessEqual(load.between(last, begin), {"DUNNO", f"REJECT {number - 1}"})
                self.assertLessEqual(load.between(begin, end), {"DUNNO", f"REJECT {number - 1}", f"REJECT {number}"})
                last = end
            load.wait_until_asked(200)
        self.assertEqual(load.broken, [])
        self.assertEqual(load.connections, CONNECTIONS)
        self.assertIn("REJECT 20", load.between(last, time.monotonic()))
        # Each message was counted, and each once.
        self.assertEqual(service.remaining("ann"), 100_000 - load.passed)

    def test_hangups_in_a_row_end_with_the_last_configuration(self) -> None:
        service = started(self, PATIENT)
        with Load([service], CONNECTIONS, question=either) as load:
            load.wait_until_asked(200)
            for number in range(20):
                service.write_config(message(str(number)))
                service.signal(signal.SIGHUP)
            load.wait_for_any("REJECT 19")
            load.wait_until_asked(200)
            self.assertFalse([line for line in told(service) if REFUSED in line])
        self.assertEqual(load.broken, [])
        self.assertEqual(service.remaining("ann"), 100_000 - load.passed)

    def test_memory_does_not_grow(self) -> None:
        service = started(
            self, {**message("0"), "Limit all": {"per": "client", "unit": "messages", "amount": 9, "window": "1h"}}
        )
        with service.client() as client:
            self.assertEqual(client.ask(outbound()), "DUNNO")
        sizes = []
        for number in range(1, 251):
            self.reload(service, message(str(number)))
            sizes.append(service.memory())
        self.assertLess(sizes[-1] - sizes[49], 5 << 20)


def metrics(service: Service) -> str:
    return service.http_text("/metrics")
