"""The page: lists, trying, and the searches of history, events and audit."""

from __future__ import annotations

import csv
import re
import time
from io import StringIO

from chapps_tw.interfaces.events import Event
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.observe.decision_record import record_of
from chapps_tw.ui.lists import SHOWN
from tests.support.history import REFUSAL, record
from tests.support.page_case import PageTestCase, text_of


class ListTests(PageTestCase):
    async def names(self, path: str) -> list[str]:
        body = (await self.reader.get(path)).body.decode()
        return re.findall(r'<td><a href="/ui/user\?name=[^"]*"><bdi>([^<]*)</bdi>', body)

    async def test_a_list_is_searched_sorted_and_paged(self) -> None:
        self.reader = await self.visitor("read")
        names = [f"user{number:02}" for number in range(SHOWN + 3)]
        for name in (*names, "Zoe", "ann"):
            await self.create("users", name=name)
        self.assertEqual(await self.names("/ui/users"), ["ann", *names[: SHOWN - 1]])
        self.assertEqual(await self.names("/ui/users?sort=-name"), ["zoe", *reversed(names[4:])])
        self.assertEqual(await self.names("/ui/users?sort=id"), names[:SHOWN])
        self.assertEqual(await self.names(f"/ui/users?skip={SHOWN}"), [*names[SHOWN - 1 :], "zoe"])
        self.assertEqual(await self.names("/ui/users?name=ZO"), ["zoe"])
        await self.says(self.reader, "/ui/users", f"1 to {SHOWN} of {SHOWN + 5}")
        await self.says(self.reader, "/ui/users?name=user", f"1 to {SHOWN} of {SHOWN + 3}")
        page = (await self.reader.get("/ui/users")).body.decode()
        self.assertIn('href="/ui/users?sort=name&amp;skip=50"', page)
        self.assertNotIn("Edit</a>", page)

    async def test_a_row_is_edited_in_place(self) -> None:
        admin = await self.visitor()
        small = await self.create("quotas", name="small", quota=1)
        big = await self.create("quotas", name="big", quota=9)
        user = await self.create("users", name="ann", quota=small)
        form = (await admin.get(f"/ui/users/edit?id={user}")).body.decode()
        self.assertIn(f'<option value="{small}" selected>small</option>', form)
        saved = await admin.post("/ui/users/edit", {"id": user, "name": "anna", "quota": big})
        self.assertEqual(saved.status, 200)
        self.assertRegex(text_of(saved), r"anna big 1 Edit")
        [entry] = (await self.api("GET", "/users/?with=quota")).response
        self.assertEqual((entry["name"], entry["quota"]["name"]), ("anna", "big"))
        await admin.post("/ui/users/edit", {"id": user, "name": "anna", "quota": "0"})
        [entry] = (await self.api("GET", "/users/?with=quota")).response
        self.assertIsNone(entry["quota"])

    async def test_flags_and_numbers_are_edited_in_place(self) -> None:
        admin = await self.visitor()
        domain = await self.create("domains", name="example.com", greylist=True)
        await admin.post("/ui/domains/edit", {"id": domain, "name": "example.com", "check_spf": "1"})
        [entry] = (await self.api("GET", "/domains/")).response
        self.assertEqual((entry["greylist"], entry["check_spf"]), (False, True))
        quota = await self.create("quotas", name="small", quota=1)
        await admin.post("/ui/quotas/edit", {"id": quota, "name": "small", "quota": "7"})
        self.assertEqual((await self.api("GET", "/quotas/")).response[0]["quota"], 7)

    async def test_what_is_wrong_with_a_row_is_said_in_it(self) -> None:
        admin, reader = await self.visitor(), await self.visitor("read")
        await self.create("users", name="bob")
        user = await self.create("users", name="ann")
        answer = await admin.post("/ui/users/edit", {"id": user, "name": "bob", "quota": "0"})
        self.assertIn("A user named bob exists already", text_of(answer))
        self.assertIn('value="bob"', answer.body.decode())
        for answer in (
            await reader.post("/ui/users/edit", {"id": user, "name": "x", "quota": "0"}),
            await reader.get(f"/ui/users/edit?id={user}"),
            await admin.post("/ui/users/edit", {"id": user, "name": "x", "quota": "0"}, csrf="guess"),
        ):
            self.assertEqual(answer.status, 403)
        self.assertEqual((await admin.get("/ui/users/edit?id=99")).status, 404)

    async def test_many_are_changed_at_once(self) -> None:
        admin = await self.visitor()
        quota = await self.create("quotas", name="big", quota=9)
        users = [await self.create("users", name=name) for name in ("ann", "bob", "cy")]
        await self.says(admin, f"/ui/act/plan-users?id={users[0]}&id={users[1]}", "2 users get this plan", "big")
        answer = await admin.post("/ui/act/plan-users", {"id": users[:2], "plan": quota})
        self.assertEqual((answer.status, answer.headers["location"]), (303, "/ui/users"))
        found = (await self.api("GET", "/users/?with=quota")).response
        self.assertEqual([each["quota"] is not None for each in found], [True, True, False])
        domains = [await self.create("domains", name=name, check_spf=True) for name in ("a.example", "b.example")]
        await admin.post("/ui/act/flag-domains", {"id": domains, "greylist": "1", "check_spf": ""})
        found = (await self.api("GET", "/domains/")).response
        self.assertEqual([(each["greylist"], each["check_spf"]) for each in found], [(True, True)] * 2)
        await admin.post("/ui/act/delete-users", {"id": users})
        self.assertEqual((await self.api("GET", "/users/")).response, [])
        self.assertEqual((await admin.get("/ui/act/delete-users")).status, 422)

    async def test_a_list_is_exported_without_formulas(self) -> None:
        reader = await self.visitor("read")
        quota = await self.create("quotas", name="basic", quota=9)
        domains = [await self.create("domains", name=name) for name in ("a.example", "b.example")]
        await self.create("users", name="ann", quota=quota, domains=domains)
        email = await self.create("emails", name="=1+1@example.com")
        await self.create("users", name='=cmd|"x"', emails=[email])
        answer = await reader.get("/ui/users/export")
        self.assertEqual(answer.headers["content-disposition"], 'attachment; filename="users.csv"')
        rows = list(csv.reader(StringIO(answer.body.decode(), newline="")))
        self.assertEqual(rows[0], ["name", "quota", "domains", "emails"])
        self.assertEqual(
            rows[1:], [["ann", "basic", "a.example b.example", ""], ['\'=cmd|"x"', "", "", "'=1+1@example.com"]]
        )
        self.assertEqual(len((await reader.get("/ui/domains/export?name=b.ex")).body.splitlines()), 2)


class TryTests(PageTestCase):
    async def test_what_each_policy_would_say_is_told(self) -> None:
        reader = await self.visitor("read")
        figures = {"limit": 5, "used": 5, "wait": 60}
        request = PolicyRequest({"sender": "a@example.com"})
        self.node.records = [
            record_of("outbound", "ann", request, each, time.time())
            for each in (
                Decision("DUNNO", Reason.AUTHORIZED_DOMAIN, "SenderDomainAuthPolicy"),
                Decision("REJECT enough", Reason.QUOTA_EXCEEDED, "OutboundQuotaPolicy", figures, "user:basic"),
            )
        ]
        await self.says(
            reader, "/ui/try?user=ann&sender=a@example.com&client=192.0.2.1&stage=DATA", "Postfix would get Refused",
            "REJECT enough", "SenderDomainAuthPolicy : the sender's domain is linked to the user",
            "OutboundQuotaPolicy : 5 of 5 used (basic)",
        )  # fmt: skip
        wanted = {"sasl_username": "ann", "sender": "a@example.com", "client_address": "192.0.2.1"}
        wanted["protocol_state"] = "DATA"
        self.assertEqual(self.node.explained, [("", wanted)])

    async def test_without_values_nothing_is_asked_and_errors_are_said(self) -> None:
        reader = await self.visitor("read")
        await self.says(reader, "/ui/try", "It costs nothing")
        self.assertEqual(self.node.explained, [])
        answer = await reader.get("/ui/try?user=ann&listener=nowhere")
        self.assertEqual(answer.status, 404)
        self.assertIn("There is no listener nowhere.", text_of(answer))


class SearchTests(PageTestCase):
    async def test_the_history_is_searched_and_each_search_has_an_address(self) -> None:
        reader = await self.visitor("read")
        now = time.time()
        for number in range(60):
            more = REFUSAL if number == 0 else {}
            mail = {"instance": str(number), "sender": f"s{number}@example.com"}
            self.node.history.keep(record(time=now - number, **mail, **more))
        page = await reader.get("/ui/history?user=ann&since=1d")
        self.assertEqual(page.body.count(b'<li class="told'), 50)
        older = re.search(r'href="(/ui/history\?[^"]*before=[^"]*)"', page.body.decode())
        assert older
        self.assertEqual((await reader.get(older[1].replace("&amp;", "&"))).body.count(b'<li class="told'), 10)
        await self.says(reader, "/ui/history?refused=1", "Refused just now", "s0@example.com")
        await self.says(reader, "/ui/history?sender=@example.com&client=192.0.2.0/24", "s7@example.com")
        await self.says(reader, "/ui/history?user=nobody", "Nothing found.")

    async def test_a_search_that_cannot_be_understood_says_why(self) -> None:
        reader = await self.visitor("read")
        answer = await reader.get("/ui/history?client=nonsense&since=yesterday")
        self.assertEqual(answer.status, 422)
        self.assertIn("Client must be an IPv4 or IPv6 address or network", text_of(answer))
        self.assertIn('value="nonsense"', answer.body.decode())
        self.assertEqual((await reader.get("/ui/audit?since=yesterday")).status, 422)

    async def test_events_are_searched(self) -> None:
        reader = await self.visitor("read")
        now = time.time()
        found = [Event("near_limit", now, "ann", "8 of 10"), Event("dependency_away", now, "dns", "no answer")]
        await self.node.book.add_events("mx1", found)
        await self.create("users", name="bob")
        await self.api("POST", "/overrides/", {"user": "bob", "kind": "suspended", "until": "1h", "reason": "hacked"})
        every = ("near limit ann 8 of 10 , noticed by mx1", "dependency away dns no answer", "suspended bob until")
        said = await self.says(reader, "/ui/events", *every)
        self.assertIn(": hacked , by first", said)
        self.assertNotIn("ann", await self.says(reader, "/ui/events?kind=suspended", "bob"))
        self.assertNotIn("bob", await self.says(reader, "/ui/events?node=mx1&since=1h", "ann", "dns"))
        await self.says(reader, "/ui/events?name=nobody", "Nothing found.")
        self.assertEqual((await reader.get("/ui/events?kind=nonsense")).status, 422)
        await self.node.book.add_events("mx1", [Event("at_limit", now, f"u{number}") for number in range(60)])
        page = (await reader.get("/ui/events?kind=at_limit")).body.decode()
        older = re.search(r'href="(/ui/events\?[^"]*before=[^"]*)"', page)
        assert older
        await self.says(reader, older[1].replace("&amp;", "&"), "u9", "u0")

    async def test_the_audit_trail_tells_who_changed_what(self) -> None:
        reader = await self.visitor("read")
        domain = await self.create("domains", name="example.com", greylist=True)
        await self.api("PUT", "/domains/", {"id": domain, "greylist": False})
        await self.says(reader, "/ui/audit?kind=domains", "first update domains example.com", "greylist True False")
        await self.says(reader, "/ui/audit?author=nobody", "Nothing found.")
        for number in range(60):
            await self.create("users", name=f"user{number}")
        page = (await reader.get("/ui/audit?kind=users")).body.decode()
        older = re.search(r'href="(/ui/audit\?[^"]*before=[^"]*)"', page)
        assert older
        await self.says(reader, older[1].replace("&amp;", "&"), "user9", "user0")
