"""Connections of Postfix that send whole messages, ask again, and break off now and then."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from tests.support.four_limits import LISTENER
from tests.support.policy_client import encode, outbound
from tests.support.servers.service import Service

# Every so many questions, the connection breaks in the middle of one; after one; and a question is repeated. The next
# connection asks the same question again.
CUT, UNREAD, REPEAT = 7, 5, 3

# Recipients of the messages of a connection, in turn: 60 in all.
SIZES: Final = (1, 2, 3, 4, 5) * 4
ENDLESS: Final = 1_000_000


class Line:
    """A connection that breaks, and goes on with the next node."""

    def __init__(self, nodes: Sequence[Service], first: int, breaks: bool) -> None:
        self._nodes, self._node = nodes, first
        self._breaks = breaks
        self._asked = 0
        self._connect()

    def _connect(self) -> None:
        self._client = self._nodes[self._node % len(self._nodes)].client(LISTENER)
        self._node += 1

    def ask(self, request: dict[str, str]) -> bool:
        """Ask, and return whether the mail passes.

        :raises AssertionError: if it is answered differently when it is repeated.
        """
        self._asked += 1
        question = encode(request)
        if self._breaks and self._asked % CUT == 0:
            self._break_off(question[: len(question) // 2])
        if self._breaks and self._asked % UNREAD == 0:
            self._break_off(question)
        passes = self._client.ask(request) == "DUNNO"
        if self._asked % REPEAT == 0 and (self._client.ask(request) == "DUNNO") != passes:
            raise AssertionError(f"not {passes} when asked again: {request}")
        return passes

    def _break_off(self, data: bytes) -> None:
        self._client.send(data)
        self._client.close()
        self._connect()

    def close(self) -> None:
        self._client.close()


class Senders:
    """Connections that send messages: two of three ask at RCPT and DATA, the others at DATA only.

    :param users: who send, in turn.
    :param messages: of each connection.
    :param breaks: whether connections break; otherwise they end when the service does.
    :ivar passed: recipients that passed, by user.
    :ivar unanswered: recipients of the questions that were not answered, by user.
    :ivar offered: recipients that were offered.
    :ivar errors: what ended a connection early.
    """

    def __init__(
        self, nodes: Sequence[Service], users: Sequence[str], connections: int, messages: int, breaks: bool = True
    ) -> None:
        self.passed: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()
        self.offered = 0
        self.errors: list[str] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._messages = messages
        self._threads = [
            threading.Thread(target=self._run, args=[Line(nodes, number, breaks), users[number % len(users)], number])
            for number in range(connections)
        ]

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, line: Line, user: str, number: int) -> None:
        send = self._at_data if number % 3 == 2 else self._at_rcpt_and_data
        try:
            for message in range(self._messages):
                if self._over.is_set():
                    break
                size = SIZES[message % len(SIZES)]
                send(line, {"sasl_username": user, "sender": user}, [f"r{each}@example.net" for each in range(size)])
        except (OSError, AssertionError) as error:
            self.errors.append(repr(error))
        finally:
            line.close()

    def _at_rcpt_and_data(self, line: Line, mail: dict[str, str], names: Sequence[str]) -> None:
        instance = outbound()["instance"]
        passed = [name for name in names if self._ask(line, 1, {**mail, "recipient": name, "instance": instance})]
        if passed and not self._ask(line, 0, self._whole(mail, passed, instance)):
            raise AssertionError("what had passed at RCPT was refused at DATA")

    def _at_data(self, line: Line, mail: dict[str, str], names: Sequence[str]) -> None:
        self._ask(line, len(names), self._whole(mail, names, outbound()["instance"]))

    def _whole(self, mail: dict[str, str], names: Sequence[str], instance: str) -> dict[str, str]:
        recipient = names[0] if len(names) == 1 else ""
        count = {"recipient_count": str(len(names)), "recipient": recipient}
        return {**mail, **count, "protocol_state": "DATA", "instance": instance}

    def _ask(self, line: Line, amount: int, changes: dict[str, str]) -> bool:
        """Ask about a number of recipients, and count them."""
        user = changes["sasl_username"]
        with self._lock:
            self.offered += amount
            self.unanswered[user] += amount
        passes = line.ask(outbound(**changes))
        with self._lock:
            self.unanswered[user] -= amount
            self.passed[user] += amount * passes
        return passes
