"""Users, the administrator and a webhook are told of limits by running services."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable

from tests.support.api_case import APITestCase
from tests.support.paths import ROOT
from tests.support.policy_client import outbound
from tests.support.rest_client import ask
from tests.support.servers.common import HANGS, wait_until
from tests.support.servers.receivers import Mail, Post, SmtpReceiver, WebhookReceiver
from tests.support.servers.service import PATIENT, Book, Options, Service
from tests.support.servers.sql import PostgreSQL, running

KEY = "a key of sixteen or more"
QUOTA = 5
DOWN = 60.0
NEAR, AT = "You have used 80 %", "You have reached"


def notify(relay: SmtpReceiver, **options: object) -> Options:
    """Every user may send five messages, and is told of four and of five."""
    mail = {"from_address": "postmaster@example.com", "relay": f"127.0.0.1:{relay.port}"}
    soon = {"retry_after": 0.5, "collect_for": 0}
    return {
        **PATIENT,
        "OutboundQuotaPolicy": {"default_quota": f"{QUOTA} a day", "margin": 0},
        "SenderDomainAuthPolicy": {"own_address": True},
        "Notify": {"user_events": "near_limit at_limit", **mail, **soon, **options},
    }


def send(node: Service, users: Iterable[str], messages: int = 1) -> list[str]:
    """Send messages of each user; return the answers."""
    with node.client() as client:
        requests = [outbound(sasl_username=user, sender=user) for user in users for _ in range(messages)]
        return [client.ask(request) for request in requests]


def users(count: int, stem: str = "user") -> list[str]:
    return [f"{stem}{number}@example.com" for number in range(count)]


def zone(hour: int) -> str:
    """Return the time zone in which it is a full hour in a second or two (tzset(3))."""
    west = (math.ceil(time.time()) + 1) % 86400 - 3600 * hour
    return f"XXX{'-' if west < 0 else '+'}{time.strftime('%H:%M:%S', time.gmtime(abs(west)))}"


def told(mails: Iterable[Mail]) -> Counter[tuple[str, str]]:
    """How often each was told each subject."""
    return Counter((mail.recipient, str(mail.message["Subject"])) for mail in mails)


def text_of(mail: Mail) -> str:
    return " ".join(mail.message.get_content().split())


class NoticesCase(APITestCase):
    def relay(self) -> SmtpReceiver:
        relay = SmtpReceiver()
        self.addCleanup(relay.down)
        return relay

    def check_once(self, relay: SmtpReceiver, wanted: Iterable[str]) -> None:
        """Each of these, and nobody else, was told of each event, once."""
        counts = told(relay.mails)
        self.assertEqual(set(counts.values()), {1})
        for begin in (NEAR, AT):
            self.assertEqual(sorted(to for to, subject in counts if subject.startswith(begin)), sorted(wanted))


class TwoNodesTests(NoticesCase):
    def test_while_the_relay_is_down_for_a_minute_no_mail_waits_and_then_each_user_is_told_once(self) -> None:
        relay, begin = self.relay(), time.monotonic()
        first, second = self.run_nodes(self.run_redis(), notify(relay))
        self.create(first, "quotas", name=f"{QUOTA} a day", quota=QUOTA)
        senders = users(500)
        for node in (first, second, first, second, second):
            self.assertEqual(set(send(node, senders)), {"DUNNO"})
        for node in (first, second):
            self.assertTrue(all(answer.startswith("REJECT") for answer in send(node, senders)))
            node.log("Notices to user cannot be sent: no connection to 127.0.0.1")
        wait_until(lambda: time.monotonic() - begin > DOWN, "the end of the minute")
        self.assertEqual((relay.mails, self.pending(first)), ([], 2 * len(senders)))
        relay.up()
        wait_until(lambda: len(relay.mails) >= 2 * len(senders), "all mails")
        self.wait_for("an empty outbox", lambda: self.pending(first) == 0)
        self.check_once(relay, senders)
        self.assertEqual({mail.sender for mail in relay.mails}, {""})

    def pending(self, node: Service) -> float:
        text = ask(node.ports["api"], "GET", "/metrics", token=node.token).body.decode()
        return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("chapps_notices_pending{"))


class KilledNodeTests(NoticesCase):
    def test_what_a_killed_node_has_noted_and_not_sent_is_sent_by_another_once(self) -> None:
        relay, go_on = self.relay(), threading.Event()
        relay.hang_until(go_on)
        redis = self.run_redis()
        with running(PostgreSQL) as server:
            where = {"db_host": "127.0.0.1", "db_port": server.port, "db_name": server.new_database()}
            database: Options = {"PolicyConfigAdapter": {"adapter": "postgresql", "db_pass": "secret", **where}}
            shared = (database, {"Redis": {"server": "127.0.0.1", "port": redis.port}}, notify(relay.up()))
            node = self.run_service(*shared, set_up=True)
            self.create(node, "quotas", name=f"{QUOTA} a day", quota=QUOTA)
            leased, noted = users(5, "leased"), users(5, "noted")
            send(node, noted)
            send(node, leased, QUOTA)
            wait_until(lambda: relay.connections, "a lease")
            server.kill()
            self.assertEqual(set(send(node, noted, QUOTA - 1)), {"DUNNO"})
            node.log("limit 5 a day: 'noted4@example.com' has used 5 of 5")
            node.kill()
            server.start()
            go_on.set()
            self.assertEqual(relay.mails, [])
            other = self.run_service(*shared)
            wait_until(lambda: len(relay.mails) >= 20, "all mails", HANGS)
            other.stop()
            self.check_once(relay, [*leased, *noted])


class OneNodeTests(NoticesCase):
    def service(self, options: Options) -> Service:
        service = self.run_service(options)
        with Book(service.database) as book:
            book.user("ann@example.com", QUOTA)
        return service

    def webhook(self, *answers: int) -> WebhookReceiver:
        receiver = WebhookReceiver(*answers)
        self.addCleanup(receiver.stop)
        return receiver

    def test_a_webhook_that_fails_and_hangs_gets_each_event_once_and_its_signature_is_right(self) -> None:
        webhook = self.webhook(500, 500, 0)
        options = {"webhook": webhook.url, "webhook_secret": KEY, "webhook_events": "at_limit near_limit"}
        service = self.service(notify(self.relay().up(), user_events="", **options))
        send(service, ["ann@example.com"], QUOTA)
        wait_until(lambda: len(webhook.posts) >= 2, "both events")
        service.stop()
        events = [json.loads(post.body) for post in webhook.posts]
        self.assertEqual(
            sorted((event["kind"], event["used"]) for event in events), [("at_limit", 5), ("near_limit", 4)]
        )
        self.assertEqual({(event["account"], event["amount"]) for event in events}, {("ann@example.com", QUOTA)})
        self.assertGreaterEqual(len(webhook.refused), 3)
        for post in (*webhook.posts, *webhook.refused):
            self.check_signature(post)
        self.assertNotIn("secret-path", service.log())
        self.assertNotIn(KEY, service.log())

    def check_signature(self, post: Post) -> None:
        """As a receiver does: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec."""
        id, timestamp, signature = (post.headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        signed = hmac.new(KEY.encode(), b".".join([id.encode(), timestamp.encode(), post.body]), hashlib.sha256)
        self.assertEqual(signature, "v1," + base64.b64encode(signed.digest()).decode())
        self.assertEqual(json.loads(post.body)["id"], id)

    def test_a_mail_says_which_limit_what_is_left_when_there_is_room_and_whom_to_ask(self) -> None:
        relay = self.relay().up()
        service = self.service(notify(relay, contact="desk@example.com", user_events="near_limit"))
        send(service, ["ann@example.com"], QUOTA)
        wait_until(lambda: relay.mails, "the mail")
        [mail] = relay.mails
        message, text = mail.message, " ".join(mail.message.get_content().split())
        self.assertEqual((mail.sender, mail.recipient, str(message["To"])), ("", *["ann@example.com"] * 2))
        self.assertEqual(str(message["Auto-Submitted"]), "auto-generated")
        self.assertTrue(message["Date"] and message["Message-ID"])
        self.assertIn("4 of the 5 recipients that it may send in 24 hours (limit: 5 a day). 1 are left.", text)
        self.assertRegex(text, r"What was sent first counts until \d\d:\d\d on \w+day")
        self.assertIn("ask desk@example.com", text)

    def test_the_administrator_may_replace_a_template_and_is_told_by_mail(self) -> None:
        relay = self.relay().up()
        service = Service()
        self.addCleanup(service.remove)
        (service.directory / "admin_at_limit.txt").write_text("Subject: {{ account }} is full\n\n{{ used }}!\n")
        admin = {"admin_address": "root@example.com", "admin_events": "at_limit", "templates": service.directory}
        service.write_config(notify(relay, user_events="", **admin))
        service.start().wait_ready()
        with Book(service.database) as book:
            book.user("ann@example.com", QUOTA)
        send(service, ["ann@example.com"], QUOTA)
        wait_until(lambda: relay.mails, "the mail")
        [mail] = relay.mails
        self.assertEqual((mail.sender, mail.recipient), ("postmaster@example.com", "root@example.com"))
        self.assertEqual((mail.message["Subject"], mail.message.get_content()), ("ann@example.com is full", "5!\r\n"))

    def test_what_the_relay_refuses_for_good_is_not_tried_again_and_is_counted(self) -> None:
        relay = SmtpReceiver(reply=lambda line: "550 5.1.1 who?" if line.startswith("RCPT TO:<ann@") else "")
        self.addCleanup(relay.down)
        relay.up()
        service = self.service(notify(relay, user_events="at_limit"))
        with Book(service.database) as book:
            book.user("bob@example.com", QUOTA)
        send(service, ["ann@example.com", "bob@example.com"], QUOTA)
        wait_until(lambda: relay.mails, "the mail to bob")
        service.log("A notice to user was refused, and is dropped: 550 5.1.1 who?")
        text = ask(service.ports["api"], "GET", "/metrics", token=service.token).body.decode()
        self.assertIn('chapps_notices_failed_total{channel="user",kind="at_limit"} 1.0', text)
        self.assertEqual(len([line for line in relay.commands if line.startswith("RCPT TO:<ann@")]), 1)

    def test_events_within_a_short_time_are_one_mail_to_the_administrator(self) -> None:
        relay = self.relay().up()
        admin = {"admin_address": "root@example.com", "admin_events": "at_limit near_limit suspended", "collect_for": 3}
        service = self.service(notify(relay, user_events="", **admin))
        self.expect(
            201, service, "POST", "/overrides/", {"user": "ann@example.com", "kind": "suspended", "until": "1d"}
        )
        with Book(service.database) as book:
            people = users(20)
            for name in people:
                book.user(name, QUOTA)
        send(service, people, QUOTA)
        wait_until(lambda: len("".join(map(text_of, relay.mails)).split("has used")) > 40, "all events")
        wait_until(lambda: "ann@example.com: suspended" in "".join(map(text_of, relay.mails)), "the suspension")
        self.assertLessEqual(len(relay.mails), 3)

    def test_a_test_tells_what_became_of_it(self) -> None:
        relay, webhook = self.relay().up(), self.webhook(204, 503)
        options = {"webhook": webhook.url, "webhook_secret": KEY, "webhook_events": "at_limit"}
        service = self.service(notify(relay, admin_address="root@example.com", admin_events="at_limit", **options))
        answer = self.expect(200, service, "POST", "/notify/test/")["response"]
        both = [{"channel": name, "sent": True, "problem": ""} for name in ("admin", "webhook")]
        self.assertEqual(answer, both)
        self.assertEqual([mail.recipient for mail in relay.mails], ["root@example.com"])
        relay.down()
        admin, hook = self.expect(200, service, "POST", "/notify/test/")["response"]
        self.assertIn("no connection to 127.0.0.1", admin["problem"])
        self.assertEqual((hook["sent"], hook["problem"]), (False, "it answered 503"))

    def test_the_command_sends_a_test_and_says_what_failed(self) -> None:
        relay = self.relay().up()
        service = self.service(notify(relay, admin_address="root@example.com", admin_events="at_limit"))
        ran = self.command(service)
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr), (0, "admin: sent\n", ""))
        relay.down()
        ran = self.command(service)
        self.assertEqual((ran.returncode, ran.stdout), (1, ""))
        self.assertRegex(ran.stderr, "^chapps-cli: admin: no connection to 127.0.0.1:.*\n$")
        service.stop()
        ran = self.command(service)
        self.assertEqual(ran.returncode, 3)
        self.assertRegex(ran.stderr, "^chapps-cli: the service cannot be reached at http:.*refused\n$")

    def command(self, service: Service) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "chapps_tw.application.admin", "--config", str(service.config)]
        return subprocess.run([*command, "notify", "test"], cwd=ROOT, capture_output=True, text=True, check=False)

    def test_the_administrator_gets_a_report_once_a_day(self) -> None:
        relay = self.relay().up()
        daily = {"admin_address": "root@example.com", "daily_report": "12:00", "user_events": ""}
        service = Service(notify(relay, **daily))
        self.addCleanup(service.remove)
        service.start({"TZ": zone(15)}).wait_ready()
        with Book(service.database) as book:
            book.user("ann@example.com", QUOTA)
            book.user("eve@example.com", QUOTA)
        send(service, ["ann@example.com"], QUOTA + 1)
        users = self.expect(200, service, "GET", "/users/?q=eve")["response"]
        suspended = {"user": users[0]["name"], "kind": "suspended", "until": "1d", "reason": "hacked"}
        self.expect(201, service, "POST", "/overrides/", suspended)
        self.wait_for("the history", lambda: self.expect(200, service, "GET", "/history/?refused=1")["response"])
        service.stop()
        self.assertEqual(relay.mails, [])
        noon = zone(12)
        for _ in range(2):
            service.start({"TZ": noon}).wait_ready()
            wait_until(lambda: relay.mails, "the report")
            service.stop()
        [mail] = relay.mails
        self.assertEqual((mail.sender, mail.recipient), ("postmaster@example.com", "root@example.com"))
        text = mail.message.get_content()
        for line in ("ann@example.com: 6, 1", "quota_exceeded: 1", "eve@example.com until", ": hacked"):
            self.assertIn(line, text)

    def test_without_notices_there_is_no_test(self) -> None:
        service = self.service(PATIENT)
        self.assertIn("[Notify]", self.expect(409, service, "POST", "/notify/test/")["detail"])
