"""What the browsers of a help desk ask for: each has the start of the page open, and searches in another tab."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from itertools import chain, cycle, islice
from typing import Any
from urllib.parse import quote, urlencode

from bench.mail import user_domain, user_name
from tests.support.servers.common import HANGS
from tests.support.servers.service import Service

# What ``now.html`` and ``now.js`` ask for again and again, and after how many seconds.
POLLED = {"now/state": 10, "now/rates": 10, "now/events": 15, "now/near": 30, "now/top?since=1h": 60}
# What belongs to the page.
ASSETS = ("htmx.min.js", "page.js", "now.js", "page.css", "uPlot.iife.min.js", "uPlot.min.css", "icon.svg")
# Seconds between two keys that are followed by suggestions, and to look at an answer.
KEY, LOOK = 0.3, 2.0

Times = dict[str, list[float]]
"""Seconds that answers took, by what was asked for."""

_spawning = multiprocessing.get_context("spawn")


class Visitor:
    """One browser.

    :param number: of the visitor.
    :param users: those who are searched for.
    :ivar times: of all answers but the feed.
    :ivar shown: how often the feed has shown something.
    """

    def __init__(self, port: int, token: str, number: int, users: Sequence[int]) -> None:
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self.shown = 0
        self._port, self._number, self._users = port, number, users
        self._cookie = ""
        self._log_in(token)

    def _log_in(self, token: str) -> None:
        api, form = self._connect(), urlencode({"token": token})
        api.request("POST", "/ui/login", form, {"Content-Type": "application/x-www-form-urlencoded"})
        answer = api.getresponse()
        self._cookie = str(answer.headers["Set-Cookie"]).partition(";")[0]
        api.close()

    def _connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self._port, timeout=HANGS)

    def _ask(self, api: HTTPConnection, path: str) -> HTTPResponse:
        api.request("GET", f"/ui/{path}", headers={"Cookie": self._cookie})
        answer = api.getresponse()
        if answer.status not in (200, 303):
            raise RuntimeError(f"{path}: {answer.status} {answer.read(500)!r}")
        return answer

    def _get(self, api: HTTPConnection, what: str, path: str) -> str:
        """Ask for something, and for where it leads. Return the last address."""
        begin = time.perf_counter()
        answer = self._ask(api, path)
        answer.read()
        if answer.status == 303:
            path = answer.headers["Location"].removeprefix("/ui/")
            self._ask(api, path).read()
        self.times[what].append(time.perf_counter() - begin)
        return path

    def follow(self, over: Any) -> None:
        """Read the feed until the end."""
        feed = self._ask(self._connect(), "now/feed?field=user&value=")
        while not over.is_set():
            self.shown += feed.readline().startswith(b"event: decisions")

    def poll(self, over: Any) -> None:
        """Open the start of the page, and ask for its parts, each visitor at other moments."""
        api = self._connect()
        for path in ("", *(f"assets/{name}" for name in ASSETS), *POLLED):
            self._get(api, "open", path)
        begin = time.monotonic() + self._number / 10
        due = {path: begin + seconds * (1 + self._number) / 10 for path, seconds in POLLED.items()}
        while not over.wait(max(0.0, min(due.values()) - time.monotonic())):
            path = min(due, key=due.__getitem__)
            due[path] += POLLED[path]
            self._get(api, path, path)

    def search(self, over: Any) -> None:
        """Find one user after the other, and look at lists and the history. Each visitor begins with another step."""
        api = self._connect()
        steps = chain.from_iterable(map(_steps, cycle(self._users)))
        for pause, what, path in islice(steps, self._number, None):
            if over.wait(pause):
                return
            self._get(api, what, path)


def _steps(number: int) -> Iterator[tuple[float, str, str]]:
    """What is asked for to help a user: seconds before it, its name, and its address."""
    name, domain = user_name(number), user_domain(number)
    for typed in (name[: len(name) // 3], name[: len(name) // 2], name):
        yield KEY, "suggestions", f"suggest?q={quote(typed)}"
    yield KEY, "search", f"search?q={quote(name)}"
    yield LOOK, "list", "users"
    yield LOOK, "list", f"users?name={domain}"
    yield LOOK, "list", f"users?sort=-name&skip={number // 2}"
    yield LOOK, "list", "domains?sort=-id"
    yield LOOK, "history", f"history?user={quote(name)}"
    yield LOOK, "history", f"history?sender=%40{domain}&refused=1"


def visit_all(port: int, token: str, users: Sequence[int], number: int, open_: Any, over: Any, found: Any) -> None:
    """Run all visitors, in their own process.

    :param open_: set when each has opened the page, and sees the feed.
    :param over: ends them.
    :param found: gets their times, or an exception.
    """
    try:
        visitors = [Visitor(port, token, each, users[each::number]) for each in range(number)]
        errors: list[BaseException] = []
        threads = [
            threading.Thread(target=_guarded, args=(errors, over, work))
            for each in visitors
            for work in (each.follow, each.poll, each.search)
        ]
        for thread in threads:
            thread.start()
        while not over.wait(0.05):
            if all(each.shown and len(each.times["open"]) == 1 + len(ASSETS) + len(POLLED) for each in visitors):
                open_.set()
        for thread in threads:
            thread.join()
        found.put(errors[0] if errors else _together([each.times for each in visitors]))
    except BaseException as error:
        found.put(error)


def _guarded(errors: list[BaseException], over: Any, work: Any) -> None:
    try:
        work(over)
    except Exception as error:
        errors.append(RuntimeError(f"a visitor cannot {work.__name__}: {error!r}"))
        over.set()


def _together(all_times: Sequence[Times]) -> Times:
    names = {name for times in all_times for name in times}
    return {name: [each for times in all_times for each in times.get(name, ())] for name in names}


@contextmanager
def open_pages(service: Service, users: Sequence[int], number: int) -> Iterator[Times]:
    """Have so many visitors, in another process. At the end, yield what their answers took.

    :param users: numbers of those who are searched for.
    """
    open_, over, found = _spawning.Event(), _spawning.Event(), _spawning.Queue()
    arguments = (service.ports["api"], service.token, users, number, open_, over, found)
    process = _spawning.Process(target=visit_all, args=arguments)
    process.start()
    times: Times = {}
    try:
        while not open_.wait(0.1) and not over.is_set():
            if not process.is_alive():
                raise RuntimeError("the visitors ended")
        yield times
    finally:
        over.set()
        answer = found.get(timeout=HANGS)
        process.join()
    if isinstance(answer, BaseException):
        raise answer
    times.update(answer)
