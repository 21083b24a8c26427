"""The page: the one box, cards, and decisions in words."""

from __future__ import annotations

import re
import time

from chapps_tw.interfaces.state import Account, Charge, Message, Unit
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.observe.decision_record import entry_of
from chapps_tw.observe.decision_ring import DecisionRing
from tests.support.history import record
from tests.support.page_case import PageTestCase, Visitor, text_of

EVIL = '"<img src=x onerror=alert(1)>"@evil.example'
ORDER = "\u202egpj.exe"


class CardTestCase(PageTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node.decisions = DecisionRing()

    def decided(self, decision: Decision, user: str = "", ago: float = 0.0, **attributes: str) -> None:
        """Put a decision into the ring."""
        assert self.node.decisions is not None
        request = PolicyRequest({"protocol_state": "RCPT", **attributes})
        self.node.decisions.extend([entry_of("outbound", user, request, decision, time.time() - ago)])

    async def spend(self, user: str, amount: int) -> None:
        charge = Charge(Account("oqp", user), Unit.RECIPIENTS, amount, 10**6, 86400.0)
        await self.node.state.spend(Message("i", "", True), [charge])

    async def goes_to(self, visitor: Visitor, q: str, where: str) -> None:
        answer = await visitor.get(f"/ui/search?q={q}")
        self.assertEqual((answer.status, answer.headers.get("location")), (303, where), q)


class BoxTests(CardTestCase):
    async def test_the_box_goes_to_the_card_of_what_was_typed(self) -> None:
        visitor = await self.visitor("read")
        await self.create("quotas", name="basic", quota=10)
        await self.create("domains", name="example.com")
        await self.create("emails", name="news@partner.example")
        await self.create("users", name="ann@example.com")
        self.decided(Decision("DUNNO", Reason.WITHIN_QUOTA, "P"), "ann@example.com", queue_id="4F5D6A")
        for q, where in (
            ("ANN@Example.com", "/ui/user?name=ann%40example.com"),
            ("ann", "/ui/user?name=ann%40example.com"),
            ("example.com", "/ui/domain?name=example.com"),
            ("@Foreign.example", "/ui/domain?name=foreign.example"),
            ("NEWS@partner", "/ui/address?name=news%40partner.example"),
            ("someone@foreign.example", "/ui/address?name=someone%40foreign.example"),
            ("BASIC", "/ui/plan?name=basic"),
            ("192.0.2.7", "/ui/client?address=192.0.2.7"),
            ("[2001:DB8::1]", "/ui/client?address=2001%3Adb8%3A%3A1"),
            ("192.0.2.0/24", "/ui/client?address=192.0.2.0%2F24"),
            ("4F5D6A", "/ui/message?id=4F5D6A"),
        ):
            await self.goes_to(visitor, q, where)

    async def test_what_fits_several_is_listed(self) -> None:
        visitor = await self.visitor("read")
        for name in ("ann", "anna", "hannah"):
            await self.create("users", name=name)
        await self.goes_to(visitor, "ann", "/ui/user?name=ann")
        await self.says(visitor, "/ui/search?q=nn", "ann User", "anna User", "hannah User")
        await self.says(visitor, "/ui/suggest?q=NNA", "anna User", "hannah User")
        await self.says(visitor, "/ui/search?q=zoe", "Nothing in the book, and no decision, is named zoe")

    async def test_more_than_fits_is_bounded(self) -> None:
        visitor = await self.visitor("read")
        for number in range(20):
            await self.create("users", name=f"user{number}")
        answer = await visitor.get("/ui/suggest?q=user")
        self.assertEqual(answer.body.count(b"<li>"), 8)
        self.assertEqual((await visitor.get("/ui/search?q=" + "x" * 2000)).status, 200)


class UserTests(CardTestCase):
    async def test_a_user_who_cannot_send_is_explained(self) -> None:
        visitor = await self.visitor("operator")
        quota = await self.create("quotas", name="basic", quota=200)
        domain = await self.create("domains", name="example.com")
        await self.create("users", name="ann@example.com", quota=quota, domains=[domain])
        await self.spend("ann@example.com", 200)
        figures = {"limit": 200, "used": 200, "remaining": 0, "wait": 3600}
        refusal = Decision("REJECT enough", Reason.QUOTA_EXCEEDED, "OutboundQuotaPolicy", figures, "user:basic")
        self.decided(refusal, "ann@example.com", 200, sender="ann@example.com", recipient="bob@example.net")
        said = await self.says(
            visitor,
            "/ui/user?name=Ann@Example.com",
            "May send",
            "Plan basic",
            "200 of 200 recipients in 1 day",
            "Refused 3 minutes ago : 200 of 200 used (basic) . Room again at",
            "ann@example.com → bob@example.net",
            "example.com all addresses of the domain",
            "Reset the count",
            "Raise until a date",
        )
        self.assertNotIn("Not in the book", said)

    async def test_buttons_that_the_token_may_not_use_are_no_links(self) -> None:
        await self.create("users", name="ann")
        reader, operator, full = [await self.visitor(scope) for scope in ("read", "operator", "full")]
        for visitor, links in ((reader, (False, False)), (operator, (True, False)), (full, (True, True))):
            body = (await visitor.get("/ui/user?name=ann")).body.decode()
            found = tuple(f'href="/ui/act/{name}?' in body for name in ("raise", "plan"))
            self.assertEqual(found, links)

    async def test_links_that_the_token_may_not_use_are_not_there(self) -> None:
        domain = await self.create("domains", name="example.com")
        await self.create("users", name="ann", domains=[domain])
        self.decided(Decision("REJECT", Reason.QUOTA_EXCEEDED, "P", {"limit": 1, "used": 1}), "ann", client_address="a")
        for scope, raises, removes in (("read", 0, 0), ("operator", 1, 0), ("full", 1, 1)):
            body = (await (await self.visitor(scope)).get("/ui/user?name=ann")).body.decode()
            links = re.findall('class="small" href="/ui/act/([a-z]+)', body)
            self.assertEqual((links.count("raise"), links.count("unlink")), (raises, removes), scope)

    async def test_who_is_not_in_the_book_has_a_card_too(self) -> None:
        visitor = await self.visitor()
        await self.says(visitor, "/ui/user?name=nobody", "Not in the book", "Create a user", "No limit applies")

    async def test_overrides_at_work_are_shown_and_can_be_ended(self) -> None:
        visitor = await self.visitor("operator")
        quota = await self.create("quotas", name="basic", quota=10)
        await self.create("users", name="ann", quota=quota)
        suspension = {"user": "ann", "kind": "suspended", "until": "1d", "reason": "hacked <b>"}
        await self.api("POST", "/overrides/", suspension)
        await self.says(visitor, "/ui/user?name=ann", "May not send", "Suspended until", "hacked <b>", "Release")

    async def test_the_history_of_other_nodes_is_told_too(self) -> None:
        self.node.history.keep(record(time=time.time() - 7200, user="ann", action="450 4.7.1 later"), node="mx2")
        visitor = await self.visitor("read")
        await self.says(visitor, "/ui/user?name=ann", "Deferred 2 hours ago", "node mx2")


class OtherCardTests(CardTestCase):
    async def test_a_partner_whose_mail_is_greylisted_is_helped_from_the_card(self) -> None:
        visitor = await self.visitor("operator")
        await self.create("domains", name="example.com", greylist=True)
        deferral = Decision("450 later", Reason.GREYLIST_FIRST, "GreylistingPolicy", {"wait": 60, "tally": 0})
        mail = {"sender": "a@partner.example", "recipient": "b@example.com", "client_address": "192.0.2.7"}
        self.decided(deferral, "", 30, **mail)
        for path in ("domain?name=partner.example", "domain?name=example.com", "client?address=192.0.2.0/24"):
            await self.says(
                visitor, f"/ui/{path}", "Deferred 30 seconds ago : greylisted, a retry passes after 60 seconds",
                "Let it pass now",
            )  # fmt: skip
        await self.says(visitor, "/ui/domain?name=partner.example", "Not in the book: a foreign domain")
        await self.says(visitor, "/ui/address?name=a@partner.example", "Not in the book", "Let it pass now")

    async def test_a_domain_shows_its_flags_plans_and_users(self) -> None:
        visitor = await self.visitor("read")
        quota = await self.create("quotas", name="big", quota=10000)
        domain = await self.create("domains", name="example.com", greylist=True, pool_quota=quota)
        await self.create("users", name="ann", domains=[domain])
        await self.says(
            visitor, "/ui/domain?name=example.com", "Greylisting on", "SPF not enforced", "Together: big", "ann",
            "0 of 10 000",
        )  # fmt: skip

    async def test_a_client_shows_the_exemptions_of_its_network(self) -> None:
        visitor = await self.visitor("read")
        exemption = {"kind": "client", "scope": "spf", "until": "1d"}
        await self.api("POST", "/exemptions/", {**exemption, "value": "192.0.2.0/24", "reason": "partner"})
        await self.api("POST", "/exemptions/", {**exemption, "value": "198.51.100.0/24"})
        said = await self.says(visitor, "/ui/client?address=192.0.2.9", "192.0.2.0/24 client from spf until", "partner")
        self.assertNotIn("198.51.100", said)
        self.assertEqual((await visitor.get("/ui/client?address=nonsense")).status, 422)

    async def test_a_plan_shows_its_limits_and_users(self) -> None:
        visitor = await self.visitor("read")
        quota = await self.create("quotas", name="basic", quota=10)
        await self.api("POST", f"/quotas/{quota}/limits/", {"name": "hour", "amount": 5, "window": "1h"})
        await self.create("users", name="ann", quota=quota)
        await self.says(visitor, "/ui/plan?name=basic", "10 transmissions", "5 recipients in 1 hour", "ann")
        self.assertEqual((await visitor.get("/ui/plan?name=none")).status, 404)


class InertTests(CardTestCase):
    async def test_what_comes_in_mail_is_only_text(self) -> None:
        visitor = await self.visitor("operator")
        refusal = Decision(
            f"REJECT {EVIL}", Reason.SPF_FAIL, "SPFEnforcementPolicy", detail=f"helo '\"><script>{ORDER}"
        )
        mail = {"sender": EVIL, "recipient": f"{ORDER}@example.com", "client_address": "192.0.2.7", "queue_id": EVIL}
        self.decided(refusal, EVIL, 0.0, **mail)
        for path in (
            "/ui/client?address=192.0.2.7",
            "/ui/domain?name=example.com",
            "/ui/user?name=%22%3Cimg+src%3Dx+onerror%3Dalert(1)%3E%22%40evil.example",
            "/ui/search?q=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E",
            "/ui/act/exempt?kind=sender&value=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
        ):
            body = (await visitor.get(path)).body.decode()
            self.assertNotRegex(body, "<img src=x|<script>", path)
        said = text_of(await visitor.get("/ui/client?address=192.0.2.7"))
        self.assertIn("<img src=x onerror=alert(1)>", said)

    async def test_marks_that_turn_the_direction_are_isolated(self) -> None:
        visitor = await self.visitor("read")
        self.decided(Decision("DUNNO", Reason.WITHIN_QUOTA, "P"), "ann", sender=f"{ORDER}@evil.example")
        body = (await visitor.get("/ui/user?name=ann")).body.decode()
        self.assertIn(f"<bdi>{ORDER}@evil.example</bdi> →", body)
