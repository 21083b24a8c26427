"""A real browser, which notes everything that it asks for and complains about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, sync_playwright

from tests.support.servers.common import program

DESKTOP, PHONE = (1280, 900), (390, 844)
PATIENCE = 100_000
"""Of the browser's start, and of each step, in milliseconds."""

_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Browser:
    """One window.

    :ivar requests: address of everything that was asked for.
    :ivar complaints: errors and warnings of the console, and of scripts.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", lambda request: self.complaints.append(f"{request.url}: {request.failure}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None
        )


@contextmanager
def chromium() -> Iterator[Chromium]:
    """A browser of our own."""
    executable = program("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=list(_OPTIONS), timeout=PATIENCE)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def logged_in(
    chromium: Chromium, url: str, token: str, size: tuple[int, int] = DESKTOP, is_dark: bool = False
) -> Iterator[Browser]:
    """A window of somebody who has logged in on a page."""
    context = chromium.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if is_dark else "light"
    )
    context.set_default_timeout(PATIENCE)
    try:
        window = Browser(context.new_page())
        window.page.goto(url)
        window.page.fill("#token", token)
        window.page.click("main button")
        window.page.wait_for_selector("header.top")
        yield window
    finally:
        context.close()
