"""The page: each action asks once, does what the API does, and is in the audit trail."""

from __future__ import annotations

import re
from typing import Any

from chapps_tw.interfaces.greylist import GreylistAttempt, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Account, Charge, Message, Unit, Window
from tests.support.page_case import PageTestCase, Visitor, text_of

DAY = 86400.0


class ActionTestCase(PageTestCase):
    async def act(self, visitor: Visitor, name: str, /, **form: Any) -> str:
        """Do something; return what the next page says."""
        answer = await visitor.post(f"/ui/act/{name}", form)
        self.assertEqual(answer.status, 303, text_of(answer))
        return text_of(await visitor.get(answer.headers["location"]))

    async def asks(self, visitor: Visitor, path: str, *texts: str) -> str:
        """Check a question, and that it is the same for htmx, without the page around it; return its markup."""
        await self.says(visitor, f"/ui/act/{path}", *texts)
        part = (await visitor.get(f"/ui/act/{path}", HX_Request="true")).body.decode()
        self.assertNotIn("<html", part)
        return part

    async def last_audit(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.api("GET", "/audit/?limit=1")).response[0]
        return found

    async def user(self) -> int:
        quota = await self.create("quotas", name="basic", quota=10)
        domain = await self.create("domains", name="example.com")
        return await self.create("users", name="ann", quota=quota, domains=[domain])

    async def spend(self, user: str, amount: int) -> None:
        charge = Charge(Account("oqp", user), Unit.RECIPIENTS, amount, 10**6, DAY)
        await self.node.state.spend(Message("i", "", True), [charge])


class LiveActionTests(ActionTestCase):
    async def test_a_count_is_reset_with_before_and_after(self) -> None:
        await self.user()
        await self.spend("ann", 10)
        desk = await self.visitor("operator")
        await self.asks(desk, "reset?user=ann", "ann has used 10 of 10 recipients in 1 day.", "is forgotten")
        said = await self.act(desk, "reset", user="ann")
        self.assertIn("Before: 10 of 10 recipients in 1 day. Now: nothing used.", said)
        [usage] = await self.node.state.usage([Window(Account("oqp", "ann"), Unit.RECIPIENTS, DAY)])
        self.assertEqual(usage.used, 0)
        audited = await self.last_audit()
        self.assertEqual((audited["author"], audited["kind"], audited["name"]), ("operator", "live/limits", "ann"))

    async def test_what_is_said_is_said_once(self) -> None:
        await self.user()
        desk = await self.visitor("operator")
        self.assertIn("was reset", await self.act(desk, "reset", user="ann"))
        self.assertNotIn("was reset", text_of(await desk.get("/ui/user?name=ann")))

    async def test_one_greylisted_message_is_let_pass(self) -> None:
        desk = await self.visitor("operator")
        mail = {"client": "192.0.2.7", "sender": "", "recipient": "b@example.com"}
        query = "client=192.0.2.7&sender=&recipient=b@example.com"
        await self.asks(desk, f"pass?{query}", "Mail from the null sender to b@example.com by 192.0.2.7 passes")
        self.assertIn("passes at its next attempt", await self.act(desk, "pass", **mail))
        attempt = GreylistAttempt("192.0.2.0/24", "", "b@example.com", "example.com", "i", True)
        rules = GreylistRules(60.0, 600.0, 600.0, 600.0, 0)
        self.assertIs((await self.node.state.peek_greylist(attempt, rules)).outcome, Outcome.PASSED)
        self.assertEqual((await self.last_audit())["author"], "operator")

    async def test_a_tally_is_cleared(self) -> None:
        rules = GreylistRules(0.0, 1000.0, 1000.0, 1000.0, 10)
        attempt = GreylistAttempt("192.0.2.0/24", "a", "b", "d", "i", True)
        await self.node.state.check_greylist(attempt, rules)
        desk = await self.visitor("operator")
        await self.asks(desk, "forget?client=192.0.2.7", "192.0.2.7 has 1 messages in its tally")
        await self.act(desk, "forget", client="192.0.2.7")
        self.assertEqual(await self.node.state.tally("192.0.2.0/24"), [])


class RuleActionTests(ActionTestCase):
    async def test_a_limit_is_raised_until_a_date(self) -> None:
        await self.user()
        desk = await self.visitor("operator")
        await self.asks(desk, "raise?user=ann", "ann may send more", "How much more", "Until")
        self.assertIn("ann has 50 more until", await self.act(desk, "raise", user="ann", value="50", until="3d"))
        await self.says(desk, "/ui/user?name=ann", "0 of 60 recipients", "50 more until")
        [override] = (await self.api("GET", "/overrides/")).response
        self.assertEqual((override["user"], override["value"], override["author"]), ("ann", 50, "operator"))

    async def test_a_date_is_taken_in_the_zone_of_the_browser(self) -> None:
        await self.user()
        desk = await self.visitor("operator")
        exact = {"until_exact": "2036-10-01T08:00", "until_zone": "+08:00"}
        await self.act(desk, "raise", user="ann", value="1", until="1d", **exact)
        [override] = (await self.api("GET", "/overrides/")).response
        self.assertEqual(override["until_iso"], "2036-10-01T00:00:00.000Z")

    async def test_a_user_is_suspended_and_released(self) -> None:
        await self.user()
        desk = await self.visitor("operator")
        await self.asks(desk, "suspend?user=ann", "ann cannot send mail")
        form = {"until": "1d", "reason": "hacked", "action": "defer"}
        self.assertIn("ann is suspended until", await self.act(desk, "suspend", user="ann", **form))
        page = (await desk.get("/ui/user?name=ann")).body.decode()
        release = re.search(r'href="/ui/act/(release\?[^"]+)"', page)
        assert release
        await self.asks(desk, release[1].replace("&amp;", "&"), "Suspended: hacked. By operator")
        self.assertIn("May send", await self.act(desk, "release", id="1", user="ann"))
        self.assertEqual((await self.api("GET", "/overrides/")).response, [])

    async def test_a_whole_domain_is_suspended(self) -> None:
        await self.user()
        desk = await self.visitor("operator")
        await self.asks(desk, "suspend?domain=example.com", "All users of example.com cannot send")
        await self.act(desk, "suspend", domain="example.com", until="1d", reason="", action="refuse")
        [override] = (await self.api("GET", "/overrides/")).response
        self.assertEqual(override["domain"], "example.com")

    async def test_a_client_is_exempt_until_a_date_and_no_longer(self) -> None:
        desk = await self.visitor("operator")
        await self.asks(
            desk, "exempt?kind=client&value=192.0.2.7&scope=greylisting", "The mail is not checked for that"
        )
        form = {"kind": "client", "value": "192.0.2.7", "scope": "greylisting", "until": "4w", "reason": "partner"}
        said = await self.act(desk, "exempt", **form)
        self.assertIn("192.0.2.7 is exempt from greylisting until", said)
        self.assertIn("192.0.2.7 client from greylisting until", said)
        await self.asks(desk, "unexempt?id=1", "The exemption ends now")
        self.assertIn("no longer exempt from greylisting", await self.act(desk, "unexempt", id="1"))
        self.assertEqual((await self.api("GET", "/exemptions/")).response, [])

    async def test_what_is_wrong_is_said_beside_what_was_entered(self) -> None:
        desk = await self.visitor("operator")
        form = {"kind": "client", "value": "no client", "scope": "spf", "until": "tomorrow", "reason": "because"}
        answer = await desk.post("/ui/act/exempt", form)
        said = text_of(answer)
        self.assertEqual(answer.status, 422)
        self.assertIn("Value must be an IPv4 or IPv6 address or network", said)
        self.assertIn("Until must be epoch seconds", said)
        self.assertIn('value="no client"', answer.body.decode())
        self.assertIn('value="because"', answer.body.decode())
        await self.user()
        self.assertEqual((await desk.post("/ui/act/raise", {"user": "ann", "value": "-1", "until": "1d"})).status, 422)
        self.assertEqual((await desk.post("/ui/act/raise", {"user": "bob", "value": "1", "until": "1d"})).status, 404)
        self.assertEqual((await desk.get("/ui/act/end?id=99&user=ann")).status, 404)


class BookActionTests(ActionTestCase):
    async def test_flags_are_set(self) -> None:
        await self.user()
        admin = await self.visitor()
        await self.asks(admin, "flags?domain=example.com", "Greylist mail to it")
        said = await self.act(admin, "flags", domain="example.com", greylist="1")
        self.assertIn("example.com: greylist on, check spf off.", said)
        self.assertIn("Greylisting on", said)

    async def test_a_plan_is_given_and_taken(self) -> None:
        await self.user()
        other = await self.create("quotas", name="big", quota=1000)
        admin = await self.visitor()
        await self.asks(admin, "plan?user=ann", "ann has the plan basic.", "big")
        self.assertIn("Plan big", await self.act(admin, "plan", user="ann", plan=other))
        self.assertIn("No plan", await self.act(admin, "plan", user="ann", plan="0"))
        said = await self.act(admin, "domain-plan", domain="example.com", each_quota=other, pool_quota="0")
        self.assertIn("Each user: big", said)

    async def test_domains_and_addresses_are_linked(self) -> None:
        await self.user()
        await self.create("domains", name="shop.example")
        admin = await self.visitor()
        self.assertIn("shop.example all addresses", await self.act(admin, "link", user="ann", name="shop.example"))
        self.assertEqual((await admin.post("/ui/act/link", {"user": "ann", "name": "a@new.example"})).status, 404)
        said = await self.act(admin, "link", user="ann", name="a@new.example", create="1")
        self.assertIn("ann may send from a@new.example.", said)
        said = await self.act(admin, "unlink", user="ann", name="shop.example")
        self.assertNotIn("shop.example all addresses", said)

    async def test_entries_are_created_and_deleted(self) -> None:
        admin = await self.visitor()
        said = await self.act(admin, "new-user", name="Bob@Example.com")
        self.assertIn("bob@example.com was created.", said)
        self.assertIn("may send nothing yet", said)
        await self.act(admin, "new-domain", name="example.com", check_spf="1")
        await self.act(admin, "new-address", name="news@partner.example")
        await self.act(admin, "new-plan", name="basic", quota="5")
        [plan] = (await self.api("GET", "/quotas/")).response
        self.assertEqual((plan["name"], plan["quota"]), ("basic", 5))
        again = await admin.post("/ui/act/new-user", {"name": "bob@example.com"})
        self.assertEqual(again.status, 409)
        self.assertIn("A user named bob@example.com exists already", text_of(again))
        await self.asks(admin, "delete-users?id=1", "1 user is deleted")
        deleted = await admin.post("/ui/act/delete-users", {"id": ["1"]})
        self.assertEqual(deleted.status, 303)
        self.assertEqual((await self.api("GET", "/users/")).response, [])
        self.assertEqual((await self.last_audit())["author"], "full")

    async def test_more_than_a_thousand_at_once_are_refused(self) -> None:
        admin = await self.visitor()
        answer = await admin.post("/ui/act/delete-users", {"id": [str(number) for number in range(1001)]})
        self.assertEqual(answer.status, 422)
