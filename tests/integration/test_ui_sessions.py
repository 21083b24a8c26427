"""The page: logging in and out, and what others try."""

from __future__ import annotations

from twisted.internet.task import Clock

from chapps_tw.config.settings import API, Settings
from chapps_tw.security.tokens import Scope, Token
from chapps_tw.ui.acting import ACTIONS
from chapps_tw.ui.sessions import LIFETIME, MAX_OF_TOKEN, MAX_SESSIONS, Sessions
from tests.support.page_case import PageTestCase, Visitor, text_of
from tests.support.rest_client import Node

BROWSER = {"Accept": "text/html,application/xhtml+xml"}


class LoginTests(PageTestCase):
    async def test_without_a_session_every_view_asks_for_the_token_and_goes_on_from_there(self) -> None:
        stranger = Visitor(self.node)
        asked = await stranger.get("/ui/user?name=ann")
        self.assertEqual((asked.status, asked.headers["location"]), (303, "/ui/login?next=%2Fui%2Fuser%3Fname%3Dann"))
        form = {"token": self.node.token, "next": "/ui/user?name=ann"}
        self.assertEqual((await stranger.post("/ui/login", form)).headers["location"], "/ui/user?name=ann")

    async def test_a_login_goes_to_this_page_only(self) -> None:
        for there in ("https://evil.example/", "//evil.example/ui/", "/docs", "/ui/\r\nSet-Cookie: a=b"):
            answer = await Visitor(self.node).post("/ui/login", {"token": self.node.token, "next": there})
            self.assertEqual((answer.status, answer.headers["location"]), (303, "/ui/"), there)

    async def test_a_wrong_token_begins_nothing(self) -> None:
        stranger = Visitor(self.node)
        answer = await stranger.post("/ui/login", {"token": "guess"})
        self.assertEqual((answer.status, stranger.cookie), (403, ""))
        self.assertIn("The token is invalid.", text_of(answer))
        self.assertNotIn("www-authenticate", answer.headers)

    async def test_the_cookie_is_for_this_page_and_not_for_scripts(self) -> None:
        answer = await Visitor(self.node).post("/ui/login", {"token": self.node.token})
        self.assertRegex(
            answer.headers["set-cookie"], r"^chapps_session=[\w-]{43}; Path=/ui; HttpOnly; SameSite=Strict$"
        )
        behind = await Visitor(self.node).post("/ui/login", {"token": self.node.token}, X_Forwarded_Proto="https")
        self.assertTrue(behind.headers["set-cookie"].endswith("; Secure"))

    async def test_a_session_that_somebody_else_chose_is_not_used(self) -> None:
        victim = Visitor(self.node)
        victim.cookie = "chapps_session=chosen"
        await victim.log_in(self.node.token)
        self.assertNotIn("chosen", victim.cookie)
        thief = Visitor(self.node)
        thief.cookie = "chapps_session=chosen"
        self.assertEqual((await thief.get("/ui/")).status, 303)

    async def test_another_login_ends_the_session_before(self) -> None:
        visitor = await self.visitor()
        before = visitor.cookie
        await visitor.log_in(self.node.token)
        self.assertNotEqual(visitor.cookie, before)
        thief = Visitor(self.node)
        thief.cookie = before
        self.assertEqual((await thief.get("/ui/")).status, 303)

    async def test_a_stolen_cookie_is_worth_nothing_after_the_logout(self) -> None:
        visitor = await self.visitor()
        thief = Visitor(self.node)
        thief.cookie = visitor.cookie
        self.assertEqual((await thief.get("/ui/")).status, 200)
        gone = await visitor.post("/ui/logout", {})
        self.assertEqual((gone.status, gone.headers["location"]), (303, "/ui/login"))
        self.assertIn("Max-Age=0", gone.headers["set-cookie"])
        self.assertEqual((await thief.get("/ui/")).status, 303)

    async def test_the_sessions_of_a_revoked_token_end_at_once(self) -> None:
        visitor = await self.visitor("operator")
        self.node.tokens.revoke("operator")
        self.assertEqual((await visitor.get("/ui/")).status, 303)
        self.assertEqual((await visitor.post("/ui/act/reset", {"user": "ann"})).status, 303)

    async def test_a_part_of_the_page_sends_the_browser_to_the_login(self) -> None:
        answer = await Visitor(self.node).get("/ui/suggest?q=a", HX_Request="true")
        self.assertEqual((answer.status, answer.headers["hx-redirect"]), (204, "/ui/login"))

    async def test_browsers_are_sent_to_the_page_and_programs_to_the_documentation(self) -> None:
        browser = await self.node.ask("GET", "/", headers=BROWSER, token="")
        self.assertEqual((browser.status, browser.headers["location"]), (303, "/ui/"))
        program = await self.node.ask("GET", "/", headers={"Accept": "*/*"}, token="")
        self.assertEqual((program.status, program.headers["location"]), (307, "/docs"))


class SecurityTests(PageTestCase):
    async def test_a_form_without_the_secret_of_the_session_does_nothing(self) -> None:
        visitor, other = await self.visitor(), await self.visitor("operator")
        await self.create("users", name="ann")
        form = {"user": "ann", "until": "1d", "action": "refuse"}
        for csrf in ("", "guess", other.csrf, "ä"):
            self.assertEqual((await visitor.post("/ui/act/suspend", form, csrf=csrf)).status, 403, csrf)
        self.assertEqual((await self.api("GET", "/overrides/")).response, [])
        self.assertEqual((await visitor.post("/ui/act/suspend", form)).status, 303)

    async def test_forms_of_other_sites_are_refused(self) -> None:
        visitor = await self.visitor()
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
        ):
            self.assertEqual((await visitor.post("/ui/act/reset", {"user": "ann"}, **headers)).status, 403, headers)
            self.assertEqual((await visitor.post("/ui/login", {"token": self.node.token}, **headers)).status, 403)
        own = {"Origin": f"http://127.0.0.1:{self.node.port}", "Sec_Fetch_Site": "same-origin"}
        self.assertEqual((await visitor.post("/ui/act/reset", {"user": "ann"}, **own)).status, 303)

    async def test_what_is_not_a_form_is_refused(self) -> None:
        visitor = await self.visitor()
        for media in ("application/json", "text/plain", "multipart/form-data; boundary=x"):
            answer = await visitor.post("/ui/act/reset", {"user": "ann"}, Content_Type=media)
            self.assertEqual(answer.status, 415, media)

    async def test_the_cookie_is_no_credential_of_the_api(self) -> None:
        visitor = await self.visitor()
        self.assertEqual((await visitor.get("/users/")).status, 401)

    async def test_every_answer_keeps_others_from_framing_and_from_scripts(self) -> None:
        visitor = await self.visitor()
        for path in ("/ui/", "/ui/login", "/ui/nothing", "/ui/user?name=ann", "/ui/assets/page.js", "/ui/act/reset"):
            headers = (await visitor.get(path)).headers
            policy = headers["content-security-policy"]
            self.assertIn("default-src 'none'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual((headers["x-frame-options"], headers["x-content-type-options"]), ("DENY", "nosniff"))
            self.assertEqual(headers["referrer-policy"], "same-origin")

    async def test_no_page_has_code_or_style_in_itself(self) -> None:
        visitor = await self.visitor()
        await self.create("domains", name="example.com")
        await self.create("users", name="ann", domains=[1])
        for path in ("/ui/", "/ui/user?name=ann", "/ui/domain?name=example.com", "/ui/act/suspend?user=ann"):
            body = (await visitor.get(path)).body.decode()
            self.assertNotRegex(body, r"(?i)<style|<script(?![^>]* src=)|\son\w+=|\sstyle=|javascript:", path)

    async def test_a_token_that_only_reads_is_refused_by_every_action(self) -> None:
        reader = await self.visitor("read")
        for name in ACTIONS:
            for answer in (await reader.get(f"/ui/act/{name}"), await reader.post(f"/ui/act/{name}", {})):
                self.assertEqual(answer.status, 403, name)
                self.assertIn("this needs a token with scope", text_of(answer))

    async def test_an_operator_acts_on_what_is_live_and_leaves_the_book_alone(self) -> None:
        operator = await self.visitor("operator")
        for action in ACTIONS.values():
            needed = self.node.api.calls.scope(*action.route)
            refused = (await operator.get(f"/ui/act/{action.name}")).status == 403
            self.assertEqual(refused, needed is Scope.FULL, action.name)

    async def test_too_many_fields_are_refused(self) -> None:
        visitor = await self.visitor()
        self.assertEqual((await visitor.get("/ui/search?" + "q=a&" * 2001)).status, 400)
        self.assertEqual((await visitor.get("/ui/search?q=" + "a" * 20000)).status, 414)
        self.assertEqual((await visitor.get("/ui/search?q=%FF")).status, 400)
        self.assertEqual((await visitor.post("/ui/act/reset", {"user": "x" * 40000})).status, 413)


class NoTokenTests(PageTestCase):
    def setUp(self) -> None:
        self.node = Node(Settings(api=API(auth="none")))
        self.page = self.make_page(self.node)
        self.node.start()
        self.addCleanup(self.node.stop)

    async def test_without_tokens_a_session_still_protects_forms(self) -> None:
        visitor = Visitor(self.node)
        self.assertIn("No token is needed", text_of(await visitor.get("/ui/login")))
        self.assertEqual((await visitor.log_in("")).status, 303)
        await self.create("users", name="ann")
        self.assertEqual((await visitor.post("/ui/act/reset", {"user": "ann"}, csrf="guess")).status, 403)
        self.assertEqual((await visitor.post("/ui/act/reset", {"user": "ann"})).status, 303)


class LifetimeTests(PageTestCase):
    def sessions(self) -> Sessions:
        self.clock = Clock()
        return Sessions(self.clock.seconds, lambda _: True)

    def test_a_session_ends_after_twelve_hours(self) -> None:
        sessions = self.sessions()
        id = sessions.begin(None)
        self.clock.advance(LIFETIME - 1)
        self.assertIsNotNone(sessions.find(id))
        self.clock.advance(1)
        self.assertIsNone(sessions.find(id))
        self.assertEqual(LIFETIME, 12 * 3600)

    def test_the_number_of_sessions_is_bounded(self) -> None:
        sessions = self.sessions()
        one = Token("one", Scope.READ, 0.0, "1")
        ids = [sessions.begin(one) for _ in range(MAX_OF_TOKEN + 1)]
        self.assertEqual([sessions.find(id) is None for id in ids], [True] + [False] * MAX_OF_TOKEN)
        for number in range(MAX_SESSIONS):
            sessions.begin(Token(str(number), Scope.READ, 0.0, str(number)))
        self.assertTrue(all(sessions.find(id) is None for id in ids))
        self.assertIsNone(sessions.find(""))
