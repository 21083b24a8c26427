"""The page of one node, in a real browser, shows and changes what another node does with mail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, expect

from tests.support.api_case import APITestCase
from tests.support.browser import chromium, logged_in
from tests.support.policy_client import outbound
from tests.support.servers.common import wait_until
from tests.support.servers.service import PATIENT

USER = "carol@example.com"
SOON = 2.0
ATTEMPTS = 5


class FarmTests(APITestCase):
    def setUp(self) -> None:
        self.chromium = self.enterContext(chromium())
        self.first, self.second = self.run_nodes(self.run_redis(), {"OutboundQuotaPolicy": {"margin": 0}, **PATIENT})
        quota = self.create(self.first, "quotas", name="basic", quota=2)
        domain = self.create(self.first, "domains", name="example.com")
        self.create(self.first, "users", name=USER, quota=quota, domains=[domain])

    @contextmanager
    def page(self) -> Iterator[Page]:
        """The page of the second node."""
        self.url = f"http://127.0.0.1:{self.second.ports['api']}/ui/"
        with logged_in(self.chromium, self.url, self.second.token) as window:
            yield window.page

    def send(self, queue_id: str = "", **changes: str) -> str:
        """Ask the first node; return its answer."""
        with self.first.client() as client:
            return client.ask(outbound(sasl_username=USER, sender=USER, queue_id=queue_id, **changes))

    def check_found_soon(self, page: Page, prefix: str) -> None:
        """A mail that the first node refuses is found by its queue id on the page, within two seconds.

        Of a few mails: a busy machine may stop for as long.
        """
        for number in range(ATTEMPTS):
            queue_id = f"{prefix}{number}"
            self.assertIn("REJECT", self.send(queue_id))
            refused = time.monotonic()
            wait_until(lambda queue_id=queue_id: self.finds(page, queue_id), "the mail on the page")  # type: ignore[misc]
            if time.monotonic() - refused < SOON:
                return
        self.fail(f"None of {ATTEMPTS} mails was found within {SOON:g} s")

    def finds(self, page: Page, queue_id: str) -> bool:
        page.goto(f"{self.url}message?id={queue_id}")
        return page.locator(".told", has_text="Refused").count() > 0

    def test_what_one_node_refuses_is_found_on_the_page_of_the_other_and_after_a_restart_of_both(self) -> None:
        for _ in range(2):
            self.assertEqual(self.send(), "DUNNO")
        with self.page() as page:
            self.check_found_soon(page, "AAA")
            expect(page.locator(".told").first).to_contain_text("2 of 2")
        for node in (self.first, self.second):
            node.stop()
            node.start().wait_ready()
        with self.page() as page:
            page.goto(f"{self.url}message?id=AAA0")
            expect(page.locator(".told").first).to_contain_text("2 of 2")
            self.check_found_soon(page, "BBB")

    def test_who_is_suspended_on_the_page_of_one_node_is_refused_by_the_other_with_the_reason(self) -> None:
        self.assertEqual(self.send(), "DUNNO")
        with self.page() as page:
            page.goto(f"{self.url}user?name={USER}")
            page.click("text=Suspend")
            page.fill("dialog [name=reason]", "password stolen, call 555-0100")
            page.click("dialog button[type=submit]")
            expect(page.locator(".notice")).to_contain_text(f"{USER} is suspended until")
            self.assertRegex(self.send(), f"^REJECT .*{USER} is suspended.*: password stolen, call 555-0100$")
            page.click("text=Release")
            page.click("dialog button[type=submit]")
            expect(page.locator(".notice")).to_be_visible()
            self.assertEqual(self.send(), "DUNNO")
