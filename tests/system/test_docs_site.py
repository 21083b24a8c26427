"""The site of the documentation: built without a warning, complete, and quiet in a browser."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect
from prometheus_client.parser import text_string_to_metric_families

from chapps_tw.cli.main import main
from chapps_tw.config.load import options
from chapps_tw.config.settings import SECTIONS
from chapps_tw.mail.decision import Reason
from tests.support.browser import DESKTOP, PATIENCE, PHONE, Browser, chromium
from tests.support.paths import ROOT
from tests.support.servers.service import shared_service

PAGES = (
    "index.html", "tutorial.html", "how-to/install.html", "how-to/limit-anything.html", "reference/settings.html",
    "reference/http-api.html", "reference/commands.html", "reference/metrics.html", "explanation/architecture.html",
)  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as by ``make docs``, where a warning is an error."""
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(directory)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200)
    assert built.returncode == 0 and "WARNING" not in built.stderr, built.stderr
    return directory


def text_of(site: Path, page: str) -> str:
    return re.sub(r"<[^>]*>", "", (site / page).read_text("utf-8"))


# --- complete ---


def test_every_page_is_on_the_site_below_its_section(site: Path) -> None:
    sources = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert sources <= {path.relative_to(site) for path in site.rglob("*.html")}
    front = (site / "index.html").read_text("utf-8")
    assert [str(each) for each in sources if f'href="{each}"' not in front and str(each) != "index.html"] == []
    order = [front.index(f"{name}\n") for name in ("Tutorial", "How to", "Reference", "Explanation")]
    assert order == sorted(order)


def test_every_block_of_code_says_what_it_is(site: Path) -> None:
    """An indented block does not, and would not be run; nor does a fence that the site shows as text."""
    for path in site.rglob("*.html"):
        page = path.read_text("utf-8")
        assert ("```" in page, '<div class="highlight">' in page) == (False, False), path


def test_every_option_is_in_the_reference_with_its_default(site: Path) -> None:
    page = (site / "reference/settings.html").read_text("utf-8")
    for kind in SECTIONS.values():
        for name, metadata in options(kind):
            assert f'<code id="{kind.section}-{name}"'.lower() in page.lower(), name
            assert not metadata["default"] or f"<code>{metadata['default']}</code>" in page, name


def test_every_command_is_in_the_reference(site: Path) -> None:
    page = text_of(site, "reference/commands.html")
    for name in main.commands:
        assert f"Usage: chapps-cli {name} " in page


def test_every_reason_is_in_the_reference(site: Path) -> None:
    page = text_of(site, "reference/reasons.html")
    assert [each for each in Reason if f"\n{each.value}\n" not in page] == []


def test_every_route_of_a_service_is_in_the_reference(site: Path) -> None:
    page = text_of(site, "reference/http-api.html")
    _, document = shared_service().http("/openapi.json")
    routes = [f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods]
    assert len(routes) > 50
    assert [route for route in routes if f"\n{route}\n" not in page] == []


def test_every_metric_of_a_service_is_in_the_reference(site: Path) -> None:
    page = text_of(site, "reference/metrics.html")
    families = list(text_string_to_metric_families(metrics()))
    assert len(families) > 20
    assert [each.name for each in families if not re.search(rf"\n{each.name}(_total|_info)?\n", page)] == []


def metrics() -> str:
    """Return what a service exports."""
    service = shared_service()
    headers = {"Authorization": f"Bearer {service.token}"}
    address = f"http://127.0.0.1:{service.ports['api']}/metrics"
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as reply:
        return str(reply.read().decode())


# --- in a browser ---


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The address of a server of the site."""
    handler = functools.partial(_Handler, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as started:
        yield started


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light")])
def test_no_page_asks_elsewhere_or_is_wider_than_the_screen(
    browser: Chromium, address: str, size: tuple[int, int], scheme: str
) -> None:
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE)
    try:
        window = Browser(context.new_page())
        for page in PAGES:
            window.page.goto(address + page, wait_until="networkidle")
            assert window.page.evaluate("document.documentElement.scrollWidth") <= size[0], page
            shown = window.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (shown == "rgb(255, 255, 255)") == (scheme == "light"), page
            if directory := os.environ.get("SCREENSHOTS"):
                window.page.screenshot(path=f"{directory}/{size[0]}-{scheme}-{page.replace('/', '-')}.png")
        foreign = [each for each in window.requests if not each.startswith((address, "data:", "blob:"))]
        assert (foreign, window.complaints) == ([], [])
    finally:
        context.close()


def test_the_search_works_from_a_disk(browser: Chromium, site: Path) -> None:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    try:
        window = Browser(context.new_page())
        window.page.goto(f"file://{site}/how-to/install.html")
        window.page.click(".md-search__input")
        window.page.keyboard.type("own_address")
        expect(window.page.locator(".md-search-result__link").first).to_contain_text("own_address")
        foreign = [each for each in window.requests if not each.startswith((f"file://{site}/", "data:", "blob:"))]
        assert (foreign, window.complaints) == ([], [])
    finally:
        context.close()


def test_commands_are_copied_without_prompts_and_output(browser: Chromium, address: str) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(PATIENCE)
    try:
        page = context.new_page()
        page.goto(f"{address}tutorial.html")
        block = page.locator(".highlight", has_text="alias chapps-cli")
        block.locator("button").first.click()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert [line.partition(" ")[0] for line in copied.strip().splitlines()] == ["alias", "chapps-cli"]
    finally:
        context.close()
