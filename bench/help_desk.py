"""How long each of the three calls to a help desk takes, on the page and on the command line.

Usage: ``python -m bench.help_desk``. It types like a person, and looks for two seconds before each step.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from playwright.sync_api import Page, expect

from tests.support.browser import chromium, logged_in
from tests.support.paths import ROOT
from tests.support.policy_client import inbound, outbound
from tests.support.servers.service import Service

# Seconds for a key, and to look at what there is before the next step.
KEY, LOOK = 0.15, 2.0
USERS = 500
USER, HACKED, PARTNER = "alice@example.com", "carol@example.com", "192.0.2.1"


class Result(NamedTuple):
    """What a call took.

    :ivar steps: texts typed, and keys or buttons pressed.
    :ivar seconds: from the first key to the end.
    :ivar waited: seconds of them that the service and the program took.
    """

    steps: int
    seconds: float
    waited: float


class Desk:
    """Somebody at the help desk."""

    def __init__(self) -> None:
        self.steps = 0
        self.own = 0.0
        self.begin = time.perf_counter()

    def look(self) -> None:
        """Look at what there is."""
        time.sleep(LOOK)
        self.own += LOOK

    def step(self, keys: int = 0) -> None:
        self.steps += 1
        self.own += keys * KEY

    def result(self) -> Result:
        seconds = time.perf_counter() - self.begin
        return Result(self.steps, seconds, seconds - self.own)


class PageDesk(Desk):
    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page = page

    def type(self, text: str) -> None:
        self.page.keyboard.type(text, delay=1000 * KEY)
        self.step(len(text))

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.step()

    def click(self, selector: str) -> None:
        self.look()
        self.page.click(selector)
        self.step()

    def search(self, text: str, shown: str) -> None:
        """Find something by the box, from any page."""
        self.press("/")
        self.type(text)
        self.press("Enter")
        expect(self.page.locator("main")).to_contain_text(shown)

    def confirm(self, said: str) -> None:
        self.click("dialog button[type=submit]")
        expect(self.page.locator(".notice")).to_contain_text(said)


def cannot_send(desk: PageDesk) -> None:
    desk.search(USER, "2 of 2")
    desk.click(".buttons >> text=Reset the count")
    desk.confirm("was reset")


def hacked(desk: PageDesk) -> None:
    desk.search(HACKED, HACKED)
    desk.click(".buttons >> text=Suspend")
    desk.page.click("dialog [name=reason]")
    desk.step()
    desk.type("password stolen")
    desk.confirm("is suspended until")


def refused_partner(desk: PageDesk) -> None:
    desk.search(PARTNER, "Deferred")
    desk.click(".buttons >> text=Exempt from greylisting")
    desk.confirm("is exempt from greylisting")


CALLS: tuple[tuple[str, Callable[[PageDesk], None], tuple[str, ...]], ...] = (
    ("I cannot send", cannot_send, (f"why {USER}", f"reset {USER}")),
    ("This account is hacked", hacked, (f"why {HACKED}", f"suspend {HACKED} --until 1d --reason hacked")),
    (
        "Your server refuses our partner",
        refused_partner,
        (f"why {PARTNER}", f"exempt client {PARTNER} --from greylisting --until 4w"),
    ),
)


def commands(service: Service, lines: tuple[str, ...]) -> Result:
    """Type commands, and run them."""
    desk = Desk()
    environment = {**os.environ, "CHAPPS_CONFIG": str(service.config), "PYTHONPATH": str(ROOT)}
    for number, line in enumerate(lines):
        if number:
            desk.look()
        time.sleep(KEY * len(f"chapps-cli {line}"))
        desk.step(len(f"chapps-cli {line}"))
        command = [sys.executable, "-m", "chapps_tw.application.admin", *line.split()]
        subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
    return desk.result()


def fill(service: Service) -> None:
    """Have the users, two messages of each of which one is refused, and a partner who is deferred."""
    service.http("/quotas/", "POST", {"name": "basic", "quota": 2})
    service.http("/domains/", "POST", {"name": "example.com", "greylist": True})
    for name in (USER, HACKED, *(f"user{number}@example.com" for number in range(USERS))):
        service.http("/users/", "POST", {"name": name, "quota": 1, "domains": [1]})
    with service.client() as client:
        for name in (USER, HACKED):
            for _ in range(3):
                client.ask(outbound(sasl_username=name, sender=name))
    with service.client("greylisting") as client:
        client.ask(inbound(client_address=PARTNER, sender="sales@partner.example", recipient=USER))


def row(where: str, call: str, result: Result) -> str:
    return f"| {call} | {where} | {result.steps} | {result.seconds:.1f} | {result.waited:.1f} |"


def main() -> None:
    service = Service({"GreylistingPolicy": {"minimum_deferral": 3600}})
    try:
        service.start().wait_ready()
        fill(service)
        print("| call | by | steps | seconds | of which waiting |\n|---|---|---|---|---|")
        url = f"http://127.0.0.1:{service.ports['api']}/ui/"
        with chromium() as browser, logged_in(browser, url, service.token) as window:
            for call, help_with, _ in CALLS:
                desk = PageDesk(window.page)
                help_with(desk)
                print(row("page", call, desk.result()))
        for call, _, lines in CALLS:
            print(row("command line", call, commands(service, lines)))
    finally:
        service.remove()


if __name__ == "__main__":
    main()
