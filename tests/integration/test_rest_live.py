"""Live state over a real socket."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from chapps_tw.config.settings import GreylistingPolicy, Settings
from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.greylist import Fill, GreylistAttempt, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Account, Charge, Message, Unit, Window
from chapps_tw.interfaces.value_keys import check_spf
from chapps_tw.rest.routers.changes import AWAITS_STATE
from tests.support.cached_values import keep, keep_quota, keep_verdict, quota_number, verdict_of
from tests.support.rest_client import PASSCODE, Answer, Node, Outage

DAY = 86400.0
GREYLIST_RULES = GreylistRules(0.0, 1000.0, 1000.0, 1000.0, 10)


class LiveTestCase(TestCase):
    def setUp(self) -> None:
        self.node = Node()
        self.node.start()
        self.addCleanup(self.node.stop)

    async def create(self, kind: str, **fields: Any) -> int:
        answer = await self.node.ask("POST", f"/{kind}/", fields)
        self.assertEqual(answer.status, 201, answer.body)
        return int(answer.response["id"])

    async def expect(self, status: int, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        answer = await self.node.ask(method, path, body, **more)
        self.assertEqual(answer.status, status, (method, path, answer.body))
        return answer

    async def send(self, user: str, cost: int, limit: int, instance: str = "i1") -> None:
        """Count a message, and cache a limit."""
        await keep_quota(self.node.state, user, limit)
        charge = Charge(Account("oqp", user), Unit.RECIPIENTS, cost, limit, DAY)
        spent = await self.node.state.spend(Message(instance, "", True), [charge])
        self.assertIs(spent.outcome, Outcome.ACCEPTED)

    async def used(self, user: str) -> int:
        return (await self.node.state.usage([Window(Account("oqp", user), Unit.RECIPIENTS, DAY)]))[0].used


class QuotaTests(LiveTestCase):
    async def users(self) -> tuple[int, int]:
        quota = await self.create("quotas", name="basic", quota=10)
        return await self.create("users", name="alice", quota=quota), await self.create("users", name="bob")

    async def test_the_remaining_quota_decreases_by_what_was_sent(self) -> None:
        alice, _ = await self.users()
        before = (await self.expect(200, "GET", f"/live/quota/{alice}")).json
        self.assertEqual(before["response"], 10)
        self.assertIn("There is no cached limit for user alice.", before["remarks"])
        await self.send("alice", 3, 10)
        after = (await self.expect(200, "GET", f"/live/quota/{alice}/")).json
        self.assertEqual(after["response"], 7)
        self.assertRegex(after["remarks"][0], r"^The last attempt was at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\.$")

    async def test_a_user_is_found_by_name_in_the_body_or_in_the_query(self) -> None:
        await self.users()
        for body, query in (("alice", ""), ({"name": "alice"}, ""), (None, "?name=alice")):
            for path in ("/live/quota/0", "/live/quota/0/"):
                self.assertEqual((await self.expect(200, "GET", path + query, body)).response, 10)
                self.assertEqual((await self.expect(200, "POST", path + query, body)).response, 10)
                self.assertEqual((await self.expect(200, "DELETE", path + query, body)).response, 0)

    async def test_an_id_takes_precedence_and_a_name_is_used_if_it_does_not_exist(self) -> None:
        alice, _ = await self.users()
        self.assertEqual((await self.expect(200, "GET", f"/live/quota/{alice}?name=bob")).response, 10)
        found = (await self.expect(200, "GET", "/live/quota/77?name=alice")).json
        self.assertEqual(found["response"], 10)
        self.assertIn("There is no user with id 77: found by name alice.", found["remarks"])

    async def test_errors_name_the_missing_user(self) -> None:
        for path, status, detail in (
            ("/live/quota/0", 400, "The id or the name of a user is required."),
            ("/live/quota/77", 404, "There is no user with id 77."),
            ("/live/quota/0?name=nobody", 404, "There is no user with name nobody."),
            ("/live/quota/77?name=nobody", 404, "There is no user with id 77 or name nobody."),
        ):
            for method in ("GET", "POST", "DELETE"):
                self.assertEqual((await self.expect(status, method, path)).detail, detail)

    async def test_a_reset_returns_the_previous_usage(self) -> None:
        alice, _ = await self.users()
        await self.send("alice", 4, 10)
        self.assertEqual((await self.expect(200, "DELETE", f"/live/quota/{alice}")).response, 4)
        self.assertEqual((await self.expect(200, "GET", f"/live/quota/{alice}")).response, 10)

    async def test_a_refresh_drops_the_cached_limit_and_keeps_the_usage(self) -> None:
        alice, _ = await self.users()
        await self.send("alice", 4, 100)
        self.assertEqual((await self.expect(200, "POST", f"/live/quota/{alice}")).response, 6)
        self.assertEqual((await quota_number(self.node.state, "alice"), await self.used("alice")), (10, 4))

    async def test_a_user_without_quota_has_nothing_left_and_cannot_be_refreshed(self) -> None:
        _, bob = await self.users()
        answer = (await self.expect(200, "GET", f"/live/quota/{bob}")).json
        self.assertEqual(answer["response"], 0)
        self.assertIn("User bob has no quota.", answer["remarks"])
        self.assertEqual((await self.expect(404, "POST", f"/live/quota/{bob}")).detail, "User bob has no quota.")

    async def test_several_users_by_body_and_by_query(self) -> None:
        alice, bob = await self.users()
        await self.send("alice", 1, 10)
        wanted = [{"user_name": "alice", "quota_avail": 9}, {"user_name": "bob", "quota_avail": 0}]
        by_body = (await self.expect(200, "GET", "/live/quota/", [alice, bob, 77])).json
        by_query = (await self.expect(200, "GET", f"/live/quota/?user_ids={bob}&user_ids={alice}")).json
        self.assertEqual([by_body["response"], by_query["response"]], [wanted, wanted])
        self.assertEqual(by_body["remarks"], ["There is no user with id 77.", "User bob has no quota."])

    async def test_several_users_by_name_by_body_and_by_query(self) -> None:
        await self.users()
        await self.send("alice", 1, 10)
        wanted = [{"user_name": "alice", "quota_avail": 9}, {"user_name": "bob", "quota_avail": 0}]
        path = "/live/quota/by-name/"
        by_body = (await self.expect(200, "GET", path, ["ALICE", "carol", "bob", "Alice"])).json
        self.assertEqual(by_body["response"], wanted)
        self.assertEqual(by_body["remarks"], ["There is no user named carol.", "User bob has no quota."])
        by_query = (await self.expect(200, "GET", path + "?names=bob&names=alice")).json
        self.assertEqual(by_query["response"], wanted[::-1])
        many = [f"user{number}" for number in range(11)]
        told = (await self.expect(200, "GET", path, many)).json["remarks"]
        self.assertEqual(told, [f"There is no user named {', '.join(many[:10])} and others."])
        await self.expect(422, "GET", path, [])
        await self.expect(422, "GET", path)
        await self.expect(422, "GET", path, ["x"] * 1001)
        await self.expect(405, "POST", path)


class SenderTests(LiveTestCase):
    async def remember(self, user: str, name: str, allowed: bool) -> None:
        await keep_verdict(self.node.state, user, name, allowed)

    async def test_one_verdict_is_shown_and_cleared(self) -> None:
        path = "/live/sda/example.com/for/alice"
        self.assertEqual((await self.expect(200, "GET", path)).response, "NOT CACHED")
        await self.remember("alice", "example.com", True)
        self.assertEqual((await self.expect(200, "GET", "/live/sda/EXAMPLE.com/for/alice/")).response, "AUTHORIZED")
        self.assertEqual((await self.expect(200, "DELETE", path)).response, "AUTHORIZED")
        self.assertEqual((await self.expect(200, "DELETE", path)).response, "NOT CACHED")
        await self.remember("alice", "example.com", False)
        self.assertEqual((await self.expect(200, "GET", path)).response, "PROHIBITED")

    async def test_unusual_names_are_distinct_in_paths(self) -> None:
        users = ["a/b", "a", "50%", "%2f", "two words", "jürgen", "名前", "12345", "for", "x@y.example"]
        for place, user in enumerate(users):
            await self.remember(user, "a+b/c@example.com", place % 2 == 0)
            await self.remember(user, "a@example.com", False)
        for place, user in enumerate(users):
            path = f"/live/sda/{quote('a+b/c@EXAMPLE.com', safe='')}/for/{quote(user, safe='')}"
            wanted = "AUTHORIZED" if place % 2 == 0 else "PROHIBITED"
            self.assertEqual((await self.expect(200, "GET", path)).response, wanted)

    async def test_a_unicode_domain_is_normalized_as_by_policies(self) -> None:
        await self.remember("alice", "xn--bcher-kva.example", True)
        path = f"/live/sda/{quote('bücher.example')}/for/alice"
        self.assertEqual((await self.expect(200, "GET", path)).response, "AUTHORIZED")

    async def test_all_pairs_by_body_and_by_query_and_cleared(self) -> None:
        users = [await self.create("users", name=name) for name in ("alice", "bob")]
        domain = await self.create("domains", name="example.com")
        email = await self.create("emails", name="a@example.org")
        await self.remember("alice", "example.com", True)
        await self.remember("bob", "a@example.org", False)
        wanted = {
            "example.com": {"alice": "AUTHORIZED", "bob": "NOT CACHED"},
            "a@example.org": {"alice": "NOT CACHED", "bob": "PROHIBITED"},
        }
        body = {"user_ids": users, "domain_ids": [domain], "email_ids": [email]}
        query = f"?user_ids={users[0]}&user_ids={users[1]}&domain_ids={domain}&email_ids={email}"
        self.assertEqual((await self.expect(200, "GET", "/live/sda/", body)).response, wanted)
        self.assertEqual((await self.expect(200, "GET", "/live/sda/" + query)).response, wanted)
        self.assertEqual((await self.expect(200, "DELETE", "/live/sda/", body)).response, "cleared 2 of 4")
        cleared = (await self.expect(200, "GET", "/live/sda/", body)).response
        self.assertEqual({status for row in cleared.values() for status in row.values()}, {"NOT CACHED"})

    async def test_domains_or_addresses_are_required(self) -> None:
        user = await self.create("users", name="alice")
        await self.expect(400, "GET", "/live/sda/", {"user_ids": [user]})
        await self.expect(400, "DELETE", f"/live/sda/?user_ids={user}")

    async def test_too_many_pairs_are_rejected_with_their_location(self) -> None:
        ids = list(range(1, 102))
        query = "&".join(f"{name}={id}" for name in ("user_ids", "domain_ids") for id in ids)
        for path, body, place in (
            ("/live/sda/", {"user_ids": ids, "domain_ids": ids}, "body"),
            (f"/live/sda/?{query}", None, "query"),
        ):
            for method in ("GET", "DELETE"):
                [fault] = (await self.expect(422, method, path, body)).detail
                wanted = ([place], "there must be at most 10000 pairs of user and sender")
                self.assertEqual((fault["loc"], fault["msg"]), wanted)
        ids.pop()
        await self.expect(200, "GET", "/live/sda/", {"user_ids": ids, "domain_ids": ids})

    async def test_a_source_must_be_a_domain_or_an_address(self) -> None:
        await self.expect(422, "GET", "/live/sda/no%20domain/for/alice")
        await self.expect(422, "GET", "/live/sda/a@b@/for/alice")
        await self.expect(422, "GET", "/live/sda/example.com/for/%FF")
        await self.expect(404, "GET", "/live/sda/example.com/for/")


class InboundTests(LiveTestCase):
    async def check_greylist(self, client: str, instance: str) -> None:
        attempt = GreylistAttempt(client, "a@example.com", "b@example.org", "example.org", instance, True)
        met = await self.node.state.check_greylist(attempt, GREYLIST_RULES)
        if met.outcome is Outcome.MISSING:
            await self.node.state.check_greylist(attempt, GREYLIST_RULES, Fill(met.token, 1, 1000.0))

    async def test_the_last_time_of_a_tuple_by_body_and_by_query(self) -> None:
        asked = {"client_address": "192.0.2.7", "sender": "A@example.com", "recipient": "b@example.org"}
        self.assertEqual((await self.expect(200, "GET", "/live/grl/tuple/", asked)).response, 0.0)
        await self.check_greylist("192.0.2.0/24", "i1")
        found = (await self.expect(200, "GET", "/live/grl/tuple/", asked)).response
        self.assertApproximates(found, time.time(), 10)
        query = "?client_address=192.0.2.99&sender=a@example.com&recipient=b@example.org"
        self.assertEqual((await self.expect(200, "GET", "/live/grl/tuple/" + query)).response, found)
        await self.expect(422, "GET", "/live/grl/tuple/", {"client_address": "192.0.2.7"})
        await self.expect(422, "GET", "/live/grl/tuple/", {**asked, "client_address": "no one"})

    async def test_a_greylisted_message_is_let_pass_and_this_is_audited(self) -> None:
        asked = {"client_address": "192.0.2.7", "sender": "A@example.com", "recipient": "B@example.org"}
        answer = await self.expect(200, "POST", "/live/grl/tuple/", asked)
        self.assertEqual(answer.json["remarks"], ["The greylist entry is for 192.0.2.0/24."])
        attempt = GreylistAttempt("192.0.2.0/24", "a@example.com", "b@example.org", "example.org", "i9", True)
        met = await self.node.state.check_greylist(attempt, GREYLIST_RULES._replace(deferral=60.0))
        self.assertIs(met.outcome, Outcome.PASSED)
        [record] = (await self.expect(200, "GET", "/audit/?kind=live/grl/tuple")).response
        self.assertEqual((record["author"], record["action"], record["after"]), ("first", "post", asked))
        await self.expect(422, "POST", "/live/grl/tuple/", {**asked, "client_address": "no one"})

    async def test_a_tuple_is_found_by_address_also_where_spf_passed(self) -> None:
        asked = {"client_address": "192.0.2.7", "sender": "a@Example.com", "recipient": "b@example.org"}
        never = (await self.expect(200, "GET", "/live/grl/tuple/", asked)).json
        wanted = ["No greylist entry for 192.0.2.0/24 or example.com."]
        self.assertEqual((never["response"], never["remarks"]), (0.0, wanted))
        await self.check_greylist("example.com", "i1")
        by_domain = (await self.expect(200, "GET", "/live/grl/tuple/", asked)).json
        self.assertApproximates(by_domain["response"], time.time(), 10)
        self.assertEqual(by_domain["remarks"], ["The greylist entry is for example.com."])
        asked_so = (await self.expect(200, "GET", "/live/grl/tuple/", {**asked, "client_address": "example.com"})).json
        self.assertEqual(asked_so["response"], by_domain["response"])
        await self.check_greylist("192.0.2.0/24", "i2")
        newest = (await self.expect(200, "GET", "/live/grl/tuple/", asked)).json
        self.assertGreater(newest["response"], by_domain["response"])
        self.assertEqual(newest["remarks"], ["The greylist entry is for 192.0.2.0/24."])
        bounce = (await self.expect(200, "GET", "/live/grl/tuple/", {**asked, "sender": ""})).json
        self.assertEqual(bounce["remarks"], ["No greylist entry for 192.0.2.0/24."])

    async def test_a_tuple_is_found_in_either_form_of_its_domains(self) -> None:
        a, u = "xn--bcher-kva.example", "bücher.example"
        attempt = GreylistAttempt("192.0.2.0/24", f"a@{a}", f"b@{a}", a, "i1", True)
        await self.node.state.check_greylist(attempt, GREYLIST_RULES)
        for domain in (a, u, u.upper()):
            asked = {"client_address": "192.0.2.7", "sender": f"a@{domain}", "recipient": f"b@{domain}"}
            self.assertTrue((await self.expect(200, "GET", "/live/grl/tuple/", asked)).response, domain)
            query = urlencode(asked)
            self.assertTrue((await self.expect(200, "GET", f"/live/grl/tuple/?{query}")).response, domain)

    async def test_a_missing_tally_comes_with_what_to_request_instead(self) -> None:
        await self.check_greylist("example.net", "i1")
        by_address = "No tally for 192.0.2.0/24. If SPF passed, the messages count for the sender's domain: "
        by_domain = (
            "No tally for example.org. If SPF did not pass, the messages count for the client's network: "
            "request its address."
        )
        for method, nothing in (("GET", []), ("DELETE", "deleted")):
            answer = (await self.expect(200, method, "/live/grl/tally/192.0.2.7")).json
            self.assertEqual(answer["response"], nothing)
            self.assertEqual(answer["remarks"], [by_address + "request that."])
            answer = (await self.expect(200, method, "/live/grl/tally/example.org")).json
            self.assertEqual((answer["response"], answer["remarks"]), (nothing, [by_domain]))
            self.assertEqual((await self.expect(200, method, "/live/grl/tally/example.net")).json["remarks"], [])

    async def test_a_tally_is_listed_and_cleared(self) -> None:
        for client, path in (
            ("192.0.2.0/24", "192.0.2.200"),
            ("2001:db8::/64", "2001:db8::1"),
            ("2001:db8:0:1::/64", "%5B2001:db8:0:1::2%5D"),
            ("example.net", "example.net"),
        ):
            await self.check_greylist(client, "i1")
            await self.check_greylist(client, "i2")
            listed = (await self.expect(200, "GET", f"/live/grl/tally/{path}")).response
            self.assertTrue(listed, client)
            self.assertTrue({instance for instance, _ in listed} <= {"i1", "i2"})
            self.assertEqual((await self.expect(200, "DELETE", f"/live/grl/tally/{path}/")).response, "deleted")
            self.assertEqual((await self.expect(200, "GET", f"/live/grl/tally/{path}")).response, [])
        await self.expect(422, "GET", "/live/grl/tally/no%20address")

    async def test_the_cached_flags_of_a_domain_are_cleared(self) -> None:
        self.assertEqual((await self.expect(200, "DELETE", "/live/grl/option_cache/Example.com")).response, "deleted")
        await keep(self.node.state, {check_spf("example.com"): "1"})
        self.assertEqual((await self.expect(200, "DELETE", "/live/spf/option_cache/Example.com")).response, "deleted")
        [after] = await self.node.state.values([check_spf("example.com")])
        self.assertIsNone(after.value)
        await self.expect(422, "DELETE", "/live/spf/option_cache/no%20domain")


class WithoutSpfIdentityTests(InboundTests):
    def setUp(self) -> None:
        self.node = Node(Settings(grl=replace(GreylistingPolicy(), spf_identity=False)))
        self.node.start()
        self.addCleanup(self.node.stop)

    async def test_a_tuple_is_found_by_address_also_where_spf_passed(self) -> None:
        await self.check_greylist("example.com", "i1")
        asked = {"client_address": "192.0.2.7", "sender": "a@example.com", "recipient": "b@example.org"}
        found = (await self.expect(200, "GET", "/live/grl/tuple/", asked)).json
        self.assertEqual((found["response"], found["remarks"]), (0.0, ["No greylist entry for 192.0.2.0/24."]))

    async def test_a_missing_tally_comes_with_what_to_request_instead(self) -> None:
        found = (await self.expect(200, "GET", "/live/grl/tally/192.0.2.7")).json
        self.assertEqual((found["response"], found["remarks"]), ([], ["No tally for 192.0.2.0/24."]))


class ConfigTests(LiveTestCase):
    async def test_the_passcode_writes_the_configuration(self) -> None:
        answer = await self.expect(200, "POST", "/live/config/write/", PASSCODE)
        self.assertEqual(answer.response, "/etc/chapps/chapps.ini")
        self.assertEqual(answer.json["remarks"], ["It was edited."])

    async def test_a_wrong_passcode_is_rejected(self) -> None:
        answer = await self.expect(401, "POST", "/live/config/write/", "guess")
        self.assertEqual(answer.detail, "The passcode is wrong.")
        self.assertIn("www-authenticate", answer.headers)


class StateAwayTests(LiveTestCase):
    def setUp(self) -> None:
        self.state = Outage()
        self.node = Node(state=self.state)  # type: ignore[arg-type]
        self.node.start()
        self.addCleanup(self.node.stop)

    async def test_routes_that_need_the_state_report_that_it_is_unavailable(self) -> None:
        user = await self.create("users", name="alice")
        self.state.away = True
        for method, path in (("GET", f"/live/quota/{user}"), ("GET", "/live/sda/example.com/for/alice")):
            self.assertEqual((await self.expect(503, method, path)).detail, "The state store is unavailable.")
        ready = (await self.expect(503, "GET", "/ready")).json
        self.assertEqual(ready["detail"], "state: The state store is unavailable.")
        self.assertEqual({part["name"]: part["up"] for part in ready["response"]}, {"state": False, "database": True})
        await self.expect(200, "GET", "/health")
        self.state.away = False
        await self.expect(200, "GET", "/ready")

    async def test_a_change_is_stored_and_takes_effect_when_the_state_is_available_again(self) -> None:
        domain = await self.create("domains", name="example.com")
        user = await self.create("users", name="alice", domains=[domain])
        await keep_verdict(self.state, "alice", "example.com", True)
        self.state.away = True
        answer = (await self.expect(200, "DELETE", f"/users/{user}/domains/", [domain])).json
        self.assertEqual(answer["remarks"], [AWAITS_STATE])
        self.assertEqual((await self.expect(200, "GET", f"/users/{user}/domains/")).response, [])
        self.state.away = False
        # The state is probed once a second.
        end = reactor.seconds() + 60
        while await verdict_of(self.state, "alice", "example.com") is not None:
            self.assertLess(reactor.seconds(), end)
            await deferLater(reactor, 0.05)


class DisconnectTests(LiveTestCase):
    async def test_a_change_is_completed_after_its_client_has_disconnected(self) -> None:
        domain = await self.create("domains", name="example.com")
        user = await self.create("users", name="alice", domains=[domain])
        await keep_verdict(self.node.state, "alice", "example.com", True)
        committed: Deferred[None] = Deferred()
        go_on: Deferred[None] = Deferred()
        drop = self.node.state.drop_values

        async def slow(*arguments: Any) -> Any:
            committed.callback(None)
            await go_on
            return await drop(*arguments)

        self.patch(self.node.state, "drop_values", slow)
        request = (
            f"DELETE /users/{user}/domains/?domain_ids={domain} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {self.node.token}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", self.node.port), 60) as client:
            client.sendall(request.encode())
            await committed
        while self.node.api.site.connections:
            await deferLater(reactor, 0.01)
        go_on.callback(None)
        while await verdict_of(self.node.state, "alice", "example.com") is not None:
            await deferLater(reactor, 0.01, lambda: None)

    async def test_a_change_that_fails_after_its_client_has_disconnected_is_logged(self) -> None:
        began: Deferred[None] = Deferred()
        go_on: Deferred[None] = Deferred()

        async def fail(*arguments: Any) -> Any:
            began.callback(None)
            await go_on
            raise BookUnavailable("The database is unavailable.")

        self.patch(self.node.book, "change", fail)
        events: list[LogEvent] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        request = (
            "DELETE /users/1/domains/?domain_ids=1 HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {self.node.token}\r\n\r\n"
        )
        sent = self.node.send_raw(request.encode(), 0.5)
        await began
        await sent
        # When the next one is answered, the server has seen that the previous connection was closed.
        await self.node.ask("GET", "/health")
        go_on.callback(None)
        told = [formatEvent(event) for event in events if event["log_level"] >= LogLevel.warn]
        self.assertEqual(
            told,
            ["HTTP: DELETE /users/1/domains/ failed after its client had disconnected: The database is unavailable."],
        )
