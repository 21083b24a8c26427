"""The page for people, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import quote, urlencode

from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect

from tests.support.api_case import APITestCase
from tests.support.browser import DESKTOP, PHONE, Browser, chromium, logged_in
from tests.support.paths import ROOT
from tests.support.policy_client import inbound, outbound
from tests.support.servers.common import HANGS
from tests.support.servers.service import CLEAN, PATIENT, Service

EVIL = '"<img src=x onerror=alert(1)>"@evil.example'
USER = "carol@example.com"
LIMIT = 5

PAGES = (
    "/ui/", f"/ui/user?name={USER}", "/ui/domain?name=example.com", "/ui/domain?name=evil.example",
    "/ui/address?name=a@partner.example", "/ui/client?address=198.51.100.7", "/ui/client?address=198.51.100.0/24",
    "/ui/plan?name=basic", "/ui/search?q=nothing", f"/ui/act/raise?user={USER}", f"/ui/act/suspend?user={USER}",
    "/ui/act/exempt?kind=client&value=192.0.2.1", f"/ui/act/link?user={USER}", f"/ui/try?user={USER}&sender={USER}",
    "/ui/users", "/ui/domains", "/ui/emails", "/ui/quotas", "/ui/history", "/ui/events", "/ui/audit", "/ui/nothing",
)  # fmt: skip

_AXE = (ROOT / "tests/data/axe-core/axe.min.js").read_text("utf-8")
_FINDINGS = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations.map(
    each => `${each.id}: ${each.nodes.map(node => node.html.slice(0, 200)).slice(0, 3).join(' | ')}`)"""


class FeedEndTests(APITestCase):
    def test_a_stop_does_not_wait_for_those_who_watch(self) -> None:
        service = self.run_service()
        host = f"127.0.0.1:{service.ports['api']}"
        connection = HTTPConnection(host, timeout=HANGS)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/ui/login", urlencode({"token": service.token}), headers)
        answer = connection.getresponse()
        answer.read()
        cookie = str(answer.headers["Set-Cookie"]).partition(";")[0]
        connection.request("GET", "/ui/now/feed", headers={"Cookie": cookie})
        feed = connection.getresponse()
        self.assertEqual((feed.status, feed.readline()), (200, b"event: decisions\n"))
        self.assertIn(service.stop(), CLEAN)
        feed.read()
        self.assertNotIn("Traceback", service.log())


class PageTests(APITestCase):
    service: Service
    chromium: Chromium

    @classmethod
    def setUpClass(cls) -> None:
        cls.chromium = cls.enterClassContext(chromium())
        cls.service = cls.run_service({**PATIENT, "GreylistingPolicy": {"minimum_deferral": 3600}})
        cls._fill()

    @classmethod
    def _fill(cls) -> None:
        for path, body in (
            ("/quotas/", {"name": "basic", "quota": LIMIT}),
            ("/domains/", {"name": "example.com", "greylist": True}),
            ("/users/", {"name": USER, "quota": 1, "domains": [1]}),
            ("/exemptions/", {"kind": "client", "value": "198.51.100.0/24", "scope": "spf", "until": "4w"}),
        ):
            status, answer = cls.service.http(path, "POST", body)
            assert status == 201, answer
        greylisting = cls.service.client("greylisting")
        for sender in (EVIL, "\u202egpj.exe@evil.example", "a@partner.example"):
            greylisting.ask(inbound(sender=sender, helo_name='"><script>alert(2)</script>'))
        for _ in range(LIMIT + 1):
            cls.send()

    @classmethod
    def send(cls, **changes: str) -> str:
        return cls.service.client().ask(outbound(sasl_username=USER, sender=USER, **changes))

    @contextmanager
    def window(
        self, size: tuple[int, int] = DESKTOP, is_dark: bool = False, token: str | None = None
    ) -> Iterator[Browser]:
        """A window of somebody who has logged in. Afterwards, nothing may have been complained about."""
        with logged_in(self.chromium, self.url("/ui/"), token or self.service.token, size, is_dark) as window:
            window.page.on("dialog", lambda dialog: self.fail(f"A script ran: {dialog.message}"))
            yield window
            self.check_quiet(window)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.service.ports['api']}{path}"

    def open(self, window: Browser, path: str) -> None:
        window.page.goto(self.url(path))

    def check_quiet(self, window: Browser) -> None:
        """No host but ours was asked, and nothing was complained about."""
        foreign = [each for each in window.requests if not each.startswith(self.url("/"))]
        # What is left unfinished when a page is left.
        complaints = [each for each in window.complaints if "ERR_ABORTED" not in each]
        self.assertEqual((foreign, complaints), ([], []))

    def check_pages(self, size: tuple[int, int], is_dark: bool) -> None:
        with self.window(size, is_dark) as window:
            for path in PAGES:
                self.open(window, path)
                window.page.wait_for_load_state("load")
                if path == "/ui/":
                    expect(window.page.locator("#top p, #top table").first).not_to_contain_text("Counting")
                    expect(window.page.locator("#live-list li").first).to_be_visible()
                window.page.evaluate(f"{_AXE};0")
                self.assertEqual(window.page.evaluate(_FINDINGS), [], (path, size, is_dark))
                self.assertLessEqual(window.page.evaluate("document.documentElement.scrollWidth"), size[0], path)
            # Its status is that of an error.
            window.complaints = [each for each in window.complaints if "404" not in each]

    def test_axe_finds_nothing_on_a_desktop(self) -> None:
        self.check_pages(DESKTOP, False)

    def test_axe_finds_nothing_in_the_dark(self) -> None:
        self.check_pages(DESKTOP, True)

    def test_axe_finds_nothing_on_a_phone_and_nothing_is_wider_than_it(self) -> None:
        self.check_pages(PHONE, False)

    def test_a_user_who_cannot_send_is_found_by_keyboard_and_helped(self) -> None:
        self.assertIn("REJECT", self.send())
        with self.window() as window:
            page = window.page
            page.keyboard.press("/")
            page.keyboard.type("CARO")
            expect(page.locator("#suggestions a")).to_have_count(1)
            page.keyboard.press("ArrowDown")
            page.keyboard.press("Enter")
            page.wait_for_url("**/ui/user?name=*")
            expect(page.locator(".limit").first).to_contain_text(f"{LIMIT} of {LIMIT}")
            expect(page.locator(".told").first).to_contain_text("Refused")
            page.click("text=Reset the count")
            expect(page.locator("dialog[open]")).to_contain_text(f"{LIMIT} of {LIMIT} recipients in 1 day")
            page.click("dialog button[type=submit]")
            expect(page.locator(".notice")).to_contain_text("Now: nothing used.")
            expect(page.locator(".limit").first).to_contain_text(f"0 of {LIMIT}")
        self.assertIn("DUNNO", self.send())

    def test_a_dialog_can_be_left_and_the_form_works_without_scripts(self) -> None:
        with self.window() as window:
            page = window.page
            self.open(window, f"/ui/user?name={USER}")
            page.click(".buttons >> text=Raise until a date")
            page.click("dialog >> text=Cancel")
            expect(page.locator("dialog[open]")).to_have_count(0)
            page.click(".buttons >> text=Raise until a date")
            page.fill("dialog [name=value]", "7")
            page.fill("dialog [name=until_exact]", "2036-10-01T08:00")
            page.click("dialog button[type=submit]")
            expect(page.locator(".notice")).to_contain_text("has 7 more until 2036-")
            page.click("text=End it now")
            page.click("dialog button[type=submit]")
            expect(page.locator(".notice")).to_contain_text("It has ended")

    def test_a_decision_is_shown_as_it_is_made_until_the_feed_is_paused(self) -> None:
        with self.window() as window:
            page, shown = window.page, window.page.locator("#live-list")
            page.fill("#live-value", USER)
            page.keyboard.press("Tab")
            expect(page.locator("#live-state")).to_have_text("connected")
            self.send(recipient="seen@example.net")
            expect(shown).to_contain_text("seen@example.net")
            page.click("#live-pause")
            expect(page.locator("#live-state")).to_have_text("paused")
            self.send(recipient="unseen@example.net")
            page.click("#live-pause")
            expect(shown).to_contain_text("unseen@example.net")

    def test_what_comes_in_mail_runs_nothing(self) -> None:
        self.service.client("greylisting").ask(inbound(sender=EVIL))
        with self.window() as window:
            for path in ("/ui/", "/ui/client?address=198.51.100.7", f"/ui/user?name={quote(EVIL)}", "/ui/history"):
                self.open(window, path)
                window.page.wait_for_load_state("load")
                if path != f"/ui/user?name={quote(EVIL)}":
                    expect(window.page.locator("main")).to_contain_text("<img src=x onerror=alert(1)>")
                self.assertEqual(window.page.locator("main img, main script").count(), 0)

    def test_a_list_is_edited_in_place(self) -> None:
        self.create(self.service, "domains", name="edit.example")
        with self.window() as window:
            page = window.page
            self.open(window, "/ui/domains?name=edit")
            page.click("text=Edit >> nth=-1")
            page.check("tr.edit [name=check_spf]")
            page.click("tr.edit >> text=Save")
            expect(page.locator("tbody tr")).to_contain_text("on")
            page.check("thead input")
            page.click(".many >> text=Delete")
            page.click("main button.danger")
            expect(page.locator(".notice")).to_contain_text("Deleted.")

    def test_the_first_stop_of_the_keyboard_skips_to_the_content(self) -> None:
        with self.window() as window:
            self.open(window, "/ui/users")
            window.page.keyboard.press("Tab")
            self.assertEqual(window.page.evaluate("document.activeElement.className"), "skip")
            window.page.keyboard.press("Enter")
            self.assertEqual(window.page.evaluate("document.activeElement.id"), "main")
