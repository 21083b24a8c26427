"""SMTP sessions that send one message after the other through several Postfixes, and note each reply."""

from __future__ import annotations

import smtplib
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

from tests.support.servers.common import wait_until
from tests.support.servers.postfix import Postfix
from tests.support.smtp_client import SMTPClient

ACCEPTED = 250


class Sent(NamedTuple):
    """A message. Times are of ``time.monotonic``.

    :ivar place: of the Postfix.
    :ivar code: the last reply; 0 if the connection was lost.
    """

    place: int
    begin: float
    end: float
    code: int


class SMTPLoad:
    """Sessions, the same number for each Postfix.

    :param pause: seconds between two messages of a session.
    :ivar sent: in the order of the replies.
    """

    def __init__(
        self, postfixes: Sequence[Postfix], login: str, sender: str, sessions: int, pause: float = 0.02
    ) -> None:
        self.sent: list[Sent] = []
        self._login, self._sender, self._pause = login, sender, pause
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=[place, postfix])
            for place, postfix in enumerate(postfixes)
            for _ in range(sessions)
        ]

    def __enter__(self) -> SMTPLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, place: int, postfix: Postfix) -> None:
        while not self._over.is_set():
            with suppress(smtplib.SMTPException, OSError), SMTPClient(postfix.port) as client:
                client.xclient(ADDR="203.0.113.5", NAME="laptop.example.net", LOGIN=self._login)
                while not self._over.wait(self._pause):
                    self._send(place, client)

    def _send(self, place: int, client: SMTPClient) -> None:
        begin, code = time.monotonic(), 0
        try:
            told = client.message(self._sender, ["bob@example.net"])
            code = told.end[0] if told.end else told.codes[0]
        finally:
            self.sent.append(Sent(place, begin, time.monotonic(), code))

    def wait_accepted(self, since: float, each: int = 20) -> None:
        """Wait until each Postfix has accepted some messages that were begun after a time."""
        places = {sent.place for sent in self.sent}

        def come() -> bool:
            good = [sent.place for sent in list(self.sent) if sent.begin > since and sent.code == ACCEPTED]
            return all(good.count(place) >= each for place in places)

        wait_until(come, "messages accepted through each Postfix")

    def codes(self, since: float = 0.0) -> set[int]:
        """Return the replies to messages that were begun after a time."""
        return {sent.code for sent in list(self.sent) if sent.begin > since}

    def last_refusal(self, since: float) -> float:
        """Return the seconds from a time until the last message that was not accepted had its reply; 0.0 for none."""
        return max(
            (sent.end - since for sent in list(self.sent) if sent.end > since and sent.code != ACCEPTED), default=0.0
        )

    @property
    def accepted(self) -> int:
        return sum(sent.code == ACCEPTED for sent in list(self.sent))
