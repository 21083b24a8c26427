"""SIGHUP: certificates, logs, the HTTP API, history and notices get their new options."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import time
from pathlib import Path

from chapps_tw.security.passcode import make_hash
from tests.support.command_line import CommandLine
from tests.support.policy_client import PolicyClient, outbound
from tests.support.reload_case import REFUSED, ReloadCase, told
from tests.support.servers.common import free_port, wait_until
from tests.support.servers.receivers import SmtpReceiver
from tests.support.servers.redis import Authority
from tests.support.servers.service import PATIENT, Service, started


class TlsClient(PolicyClient):
    """A policy client with TLS.

    :ivar certificate: of the server.
    """

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.socket: socket.socket = context.wrap_socket(self.socket)
        assert isinstance(self.socket, ssl.SSLSocket)
        self.certificate = self.socket.getpeercert(binary_form=True)

    def __enter__(self) -> TlsClient:
        return self


class CertificateTests(ReloadCase):
    def setUp(self) -> None:
        self.service = Service()
        self.addCleanup(self.service.remove)
        self.authority = Authority(self.service.directory)
        self.first = self.issue()
        self.ports = {name: free_port() for name in ("policy", "web")}
        files = f"privateKey={self.service.directory}/localhost.key:certKey={self.service.directory}/localhost.pem"
        ends = {name: f"ssl:{port}:interface=127.0.0.1:{files}" for name, port in self.ports.items()}
        self.service.write_config({"OutboundQuotaPolicy": {"listen": ends["policy"]}, "API": {"listen": ends["web"]}})
        self.service.start()
        self.service.add_user("ann", 100_000, ["example.com"])

    def issue(self) -> bytes:
        """Replace the certificate and the key; return the certificate."""
        return ssl.PEM_cert_to_DER_cert(self.authority.issue("localhost")[0].read_text())

    def test_a_new_certificate_is_for_new_connections_and_others_go_on(self) -> None:
        with TlsClient(self.ports["policy"]) as before, TlsClient(self.ports["web"]) as web:
            self.assertEqual([before.certificate, web.certificate], [self.first] * 2)
            self.assertEqual(before.ask(outbound()), "DUNNO")
            second = self.issue()
            self.hang_up(self.service)
            self.assertEqual(before.ask(outbound()), "DUNNO")
            for port in self.ports.values():
                with TlsClient(port) as client:
                    self.assertEqual(client.certificate, second)
            with TlsClient(self.ports["policy"]) as after:
                self.assertEqual(after.ask(outbound()), "DUNNO")
        self.assertIn(self.service.stop(), (0, -signal.SIGTERM))
        self.assertNotIn("Traceback", self.service.log())

    def check_refused(self, why: str) -> None:
        self.service.write_config({"SenderDomainAuthPolicy": {"rejection_message": "REJECT new"}})
        self.assertRegex(self.hang_up(self.service), f"^{REFUSED}.*: {why}")
        with TlsClient(self.ports["policy"]) as client:
            self.assertEqual(client.certificate, self.first)
            self.assertRegex(client.ask(outbound(sasl_username="nobody")), "^REJECT Rejected - ")

    def test_a_certificate_that_cannot_be_read_changes_nothing(self) -> None:
        Path(self.service.directory, "localhost.pem").unlink()
        self.check_refused(".*localhost.pem cannot be opened")

    def test_a_key_of_another_certificate_changes_nothing(self) -> None:
        key = Path(self.service.directory, "localhost.key")
        former = key.read_bytes()
        self.issue()
        key.write_bytes(former)
        self.check_refused("the certificate or its key cannot be used")


class LogTests(ReloadCase):
    def test_format_and_file_of_the_decision_log_change_and_no_line_is_lost(self) -> None:
        service = started(self)
        other = service.directory / "other.log"
        with service.client() as client:
            client.ask(outbound(instance="first"))
            self.reload(service, {"Log": {"format": "json", "file": other}})
            client.ask(outbound(instance="second"))
        service.stop()
        self.assertIn(" instance=first ", service.decisions())
        self.assertNotIn("second", service.decisions())
        self.assertEqual([json.loads(line)["instance"] for line in other.read_text().splitlines()], ["second"])

    def test_a_file_that_cannot_be_opened_changes_nothing(self) -> None:
        service = started(self)
        with service.client() as client:
            line = self.reload(service, {"Log": {"file": service.directory / "none" / "x.log"}})
            self.assertRegex(line, rf"{REFUSED}.*\[Log\] file.*")
            client.ask(outbound(instance="first"))
        service.stop()
        self.assertIn(" instance=first ", service.decisions())


class ApiTests(ReloadCase):
    def test_options_of_the_api_are_new_for_the_next_request(self) -> None:
        service = started(self)
        before = service.token
        self.reload(service, {"API": {"token_file": service.directory / "other-token", "hosts": "chapps.example"}})
        wait_until((service.directory / "other-token").exists, "the first token of the file")
        self.assertEqual(service.http("/ready")[0], 403)
        self.reload(service, {"API": {"hosts": "127.0.0.1"}})
        self.assertEqual(service.http("/ready")[0], 401)
        (service.directory / "api-token").write_bytes((service.directory / "other-token").read_bytes())
        self.assertNotEqual(service.token, before)
        self.assertEqual(service.http("/ready")[0], 200)

    def test_what_limits_a_user_is_shown_by_the_new_options(self) -> None:
        service = started(self)
        service.add_user("bob", 10)
        self.reload(service, {"OutboundQuotaPolicy": {"interval": 3600}})
        [limit] = service.http("/live/limits/bob")[1]["response"]["limits"]
        self.assertEqual(limit["window"], 3600)

    def test_it_reads_the_configuration_again_and_records_that(self) -> None:
        service = started(self)
        before = service.http("/ready")[1]["configuration"]
        service.write_config({"OutboundQuotaPolicy": {"warn_at": 50}, "GreylistingPolicy": {"listen_port": 1}})
        status, answer = service.http("/live/config/reload/", "POST")
        change = answer["response"]
        self.assertEqual(status, 200)
        self.assertEqual(change["changed"], ["[OutboundQuotaPolicy] warn_at"])
        self.assertEqual(change["restart"], ["[GreylistingPolicy] listen_port"])
        after = service.http("/ready")[1]["configuration"]
        self.assertEqual(after, {name: change[name] for name in ("digest", "loaded", "loaded_iso")})
        self.assertNotEqual(after["digest"], before["digest"])
        self.assertLess(before["loaded"], after["loaded"])
        last = service.http("/audit/?limit=1")[1]["response"][0]
        self.assertEqual((last["author"], last["action"], last["kind"]), ("first", "post", "live/config/reload"))

    def test_a_wrong_file_is_told_to_who_asked(self) -> None:
        service = started(self)
        service.write_config({"OutboundQuotaPolicy": {"warn_at": "101"}})
        status, answer = service.http("/live/config/reload/", "POST")
        self.assertEqual(status, 409)
        self.assertRegex(answer["detail"], rf"^{service.config}: line .*\[OutboundQuotaPolicy\] warn_at = '101': ")
        wait_until(lambda: len(told(service)) == 1, "the line in the log")

    def test_the_command_line_tells_what_changed(self) -> None:
        service = started(self)
        service.write_config({"OutboundQuotaPolicy": {"warn_at": 50}})
        cli = CommandLine(service.config, time.time())
        self.assertEqual(cli.ok("admin", "reload"), "changed: [OutboundQuotaPolicy] warn_at\n")
        self.assertEqual(cli.ok("admin", "reload"), "changed: nothing\n")
        service.write_config({"GreylistingPolicy": {"listen_port": 1}})
        self.assertIn("after a restart: [GreylistingPolicy] listen_port\n", cli.ok("admin", "reload"))

    def test_the_configuration_that_is_written_is_the_one_of_the_file(self) -> None:
        service = started(self)
        late = {"GreylistingPolicy": {"listen_port": 1}, "OutboundQuotaPolicy": {"warn_at": 50}}
        self.reload(service, {"CHAPPS": {"password": make_hash("secret")}, **late})
        status, answer = service.http("/live/config/write/", "POST", "secret")
        self.assertEqual((status, answer["remarks"]), (200, []))
        self.assertRegex(service.config.read_text(), r"(?s)\nwarn_at = 50\n.*\nlisten_port = 1\n")


class NoticeAndHistoryTests(ReloadCase):
    def relay(self) -> SmtpReceiver:
        relay = SmtpReceiver()
        self.addCleanup(relay.down)
        relay.up()
        return relay

    def test_notices_are_turned_on_and_sent_to_another_relay(self) -> None:
        first, second = self.relay(), self.relay()
        service = started(self, {**PATIENT, "SenderDomainAuthPolicy": {"own_address": True}})
        service.add_user("ann@example.com", 5)
        service.add_user("bob@example.com", 5)
        mail = {"user_events": "at_limit", "from_address": "postmaster@example.com", "retry_after": 0.5}
        self.reload(service, {"Notify": {**mail, "relay": f"127.0.0.1:{first.port}"}})
        self.use_up(service, "ann@example.com")
        wait_until(lambda: first.mails, "the mail to ann")
        self.assertEqual(service.http("/notify/test/", "POST")[0], 409)
        self.reload(service, {"Notify": {"relay": f"127.0.0.1:{second.port}", "admin_address": "root@example.com"}})
        self.use_up(service, "bob@example.com")
        wait_until(lambda: second.mails, "the mail to bob")
        told = [mail.recipient for mail in (*first.mails, *second.mails)]
        self.assertEqual(told, ["ann@example.com", "bob@example.com"])
        both = 'chapps_notices_sent_total{channel="user",kind="at_limit"} 2.0'
        wait_until(lambda: both in service.http_text("/metrics"), "both counted")
        self.assertEqual(service.http("/notify/test/", "POST")[0], 200)
        self.reload(service, {"Notify": {"user_events": ""}})
        self.assertEqual(service.http("/notify/test/", "POST")[0], 409)

    def use_up(self, service: Service, user: str) -> None:
        with service.client() as client:
            for _ in range(5):
                self.assertEqual(client.ask(outbound(sasl_username=user, sender=user)), "DUNNO")

    def test_what_the_history_keeps_changes(self) -> None:
        service = started(self)
        with service.client() as client:
            self.reload(service, {"History": {"record": "none"}})
            client.ask(outbound(instance="none"))
            self.reload(service, {"History": {"record": "refused"}})
            client.ask(outbound(instance="passed"))
            client.ask(outbound(sasl_username="nobody", instance="refused"))
        wait_until(lambda: self.kept(service), "the decision in the history")
        self.assertEqual(self.kept(service), ["refused"])

    def kept(self, service: Service) -> list[str]:
        return [each["instance"] for each in service.http("/history/")[1]["response"]]
