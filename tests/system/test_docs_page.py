"""The page of the documentation in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser as Chromium
from playwright.sync_api import HttpCredentials, Locator, Page

from tests.support.api_case import APITestCase
from tests.support.browser import DESKTOP, PATIENCE, PHONE, Browser, chromium
from tests.support.servers.service import Service, shared_service


class DocsPageTests(APITestCase):
    service: Service
    chromium: Chromium

    @classmethod
    def setUpClass(cls) -> None:
        cls.chromium = cls.enterClassContext(chromium())
        cls.service = shared_service()

    @contextmanager
    def window(self, size: tuple[int, int], password: str | None) -> Iterator[Browser]:
        """A window that knows nothing but the password for whoever asks for one, if that."""
        credentials: HttpCredentials | None = {"username": "", "password": password} if password is not None else None
        context = self.chromium.new_context(
            viewport={"width": size[0], "height": size[1]}, http_credentials=credentials
        )
        context.set_default_timeout(PATIENCE)
        try:
            yield Browser(context.new_page())
        finally:
            context.close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.service.ports['api']}{path}"

    def open(self, window: Browser) -> Page:
        """Open the page; returns when the operations are on it, and can be seen."""
        empty = len(window.page.screenshot())
        window.page.goto(self.url("/docs"))
        window.page.locator(".opblock").first.wait_for()
        self.assertGreater(len(window.page.screenshot()), 5 * empty)
        return window.page

    def log_in(self, page: Page) -> None:
        page.click(".auth-wrapper .authorize")
        page.fill(".modal-ux input", self.service.token)
        page.click(".modal-ux .auth-btn-wrapper .authorize")
        page.click(".modal-ux .btn-done")

    def run_operation(self, page: Page, name: str, **values: str) -> Locator:
        """Fill in the parameters of an operation and execute it; returns its block, with the answer."""
        block = page.locator(f"#operations-{name}")
        block.locator(".opblock-summary-control").click()
        block.locator(".try-out__btn").click()
        for parameter, value in values.items():
            block.locator(f'tr[data-param-name="{parameter}"] input').fill(value)
        block.locator(".execute").click()
        block.locator(".live-responses-table tbody .response-col_status").wait_for()
        return block

    def check_quiet(self, window: Browser) -> None:
        """No host but ours was asked, and nothing was complained about."""
        self.assertGreater(len(window.requests), 4)
        foreign = [each for each in window.requests if not each.startswith((self.url("/"), "data:", "blob:"))]
        self.assertEqual((foreign, window.complaints), ([], []))

    def test_every_operation_is_on_the_page(self) -> None:
        document = self.expect(200, self.service, "GET", "/openapi.json")
        with self.window(DESKTOP, self.service.token) as window:
            page = self.open(window)
            self.assertEqual(page.title(), "CHAPPS-TW")
            self.assertEqual(page.locator(".opblock").count(), sum(map(len, document["paths"].values())))
            self.assertIn("click Authorize and enter the token there too", page.locator(".info").inner_text())
            self.check_quiet(window)

    def test_a_request_is_sent_from_the_page_and_its_answer_shown(self) -> None:
        self.create(self.service, "users", name="jürgen & <b>söhne</b>")
        with self.window(DESKTOP, self.service.token) as window:
            page = self.open(window)
            self.log_in(page)
            block = self.run_operation(page, "users-get_users", q="Söhne", limit="5")
            answer = block.locator(".live-responses-table tbody").first
            self.assertEqual(answer.locator(".response-col_status").inner_text(), "200")
            self.assertIn('"jürgen & <b>söhne</b>"', answer.inner_text())
            self.assertIn(self.url("/users/?skip=0&limit=5&q=S%C3%B6hne&sort=id&total=false"), window.requests)
            self.check_quiet(window)

    def test_name_and_token_may_stand_in_the_address(self) -> None:
        address = self.url("/docs").replace("://", f"://x:{self.service.token}@")
        with self.window(DESKTOP, None) as window:
            window.page.goto(address)
            window.page.locator(".opblock").first.wait_for()
            self.log_in(window.page)
            block = self.run_operation(window.page, "users-get_users", limit="1")
            answer = block.locator(".live-responses-table tbody").first
            self.assertEqual(answer.locator(".response-col_status").inner_text(), "200")
            self.assertEqual(window.complaints, [])

    def test_without_a_token_the_page_says_that_one_is_needed(self) -> None:
        with self.window(DESKTOP, "guess") as window:
            answer = window.page.goto(self.url("/docs"))
            assert answer
            self.assertEqual((answer.status, answer.json()["detail"]), (401, "The token is invalid."))

    def test_on_a_phone_nothing_is_wider_than_the_screen(self) -> None:
        with self.window(PHONE, self.service.token) as window:
            page = self.open(window)
            self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), PHONE[0])
            self.run_operation(page, "health-get_health")
            self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), PHONE[0])
            self.check_quiet(window)
