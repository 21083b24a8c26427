"""The page over real HTTP: a browser of a few lines, and a test case with the API and the page in memory."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from chapps_tw.mail.decision import Reason
from chapps_tw.observe.decision_rates import DecisionRates
from chapps_tw.rest.slices import Slices
from chapps_tw.ui.page import Page
from tests.support.rest_client import Answer, Node

_CSRF = re.compile(r'name="csrf" value="([^"]+)"')
_TAGS = re.compile(r"<[^>]+>|\s+")


def text_of(answer: Answer) -> str:
    """Return what a page says, without its markup."""
    return html.unescape(re.sub(r"\s+", " ", _TAGS.sub(" ", answer.body.decode()))).strip()


class Visitor:
    """Somebody with a browser.

    :ivar cookie: of the session, as the browser sends it; ``""`` without one.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.cookie = ""
        self.csrf = ""

    async def get(self, path: str, **headers: str) -> Answer:
        return await self._ask("GET", path, None, headers)

    async def post(self, path: str, form: Mapping[str, Any], csrf: str | None = None, **headers: str) -> Answer:
        """Send a form, with the secret of the session unless another is given."""
        sent = {**form, "csrf": self.csrf if csrf is None else csrf}
        return await self._ask("POST", path, urlencode(sent, doseq=True).encode(), headers)

    async def log_in(self, token: str) -> Answer:
        answer = await self.post("/ui/login", {"token": token})
        page = await self.get("/ui/login-is-over" if answer.status != 303 else answer.headers["location"])
        found = _CSRF.search(page.body.decode())
        self.csrf = found[1] if found else ""
        return answer

    async def _ask(self, method: str, path: str, body: bytes | None, more: Mapping[str, str]) -> Answer:
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        if body is not None:
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        if self.cookie:
            headers.setdefault("Cookie", self.cookie)
        answer: Answer = await self._node.ask(method, path, body, headers=headers, token="")
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer


def page_of(node: Node, rates: DecisionRates) -> Page:
    """Add the page to the API of a node."""
    return Page(
        node.api, node.settings, find=node.find, rates=rates, has_token=node.tokens.has, reasons=Reason, now=time.time,
        reactor=reactor, version="0.0.test", slices=Slices(reactor),
    )  # fmt: skip


class PageTestCase(TestCase):
    """A node with its page. Nobody is logged in.

    :ivar page: started.
    """

    def setUp(self) -> None:
        self.node = Node()
        self.page = self.make_page(self.node)
        self.node.start()
        self.addCleanup(self.node.stop)

    def make_page(self, node: Node) -> Page:
        self.rates = DecisionRates()
        page = page_of(node, self.rates)
        self.addCleanup(page.stop)
        return page

    async def visitor(self, scope: str = "full") -> Visitor:
        """Return somebody who has logged in with a new token of a scope, whose name is the scope."""
        visitor = Visitor(self.node)
        answer = await visitor.log_in(self.node.tokens.create(scope, scope, 1.0))
        self.assertEqual(answer.status, 303, answer.body)
        return visitor

    async def create(self, kind: str, **fields: Any) -> int:
        """Create an entry of the book; return its id."""
        answer = await self.node.ask("POST", f"/{kind}/", fields)
        self.assertEqual(answer.status, 201, answer.body)
        return int(answer.response["id"])

    def api(self, method: str, path: str, body: Any = None) -> Deferred[Answer]:
        return self.node.ask(method, path, body)

    async def says(self, visitor: Visitor, path: str, *texts: str) -> str:
        """Check that a page says all of some texts; return all that it says."""
        answer = await visitor.get(path)
        said = text_of(answer)
        self.assertEqual(answer.status, 200, said)
        for each in texts:
            self.assertIn(each, said)
        return said
