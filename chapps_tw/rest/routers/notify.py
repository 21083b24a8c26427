"""Notices: a test of whether they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from chapps_tw.interfaces.notify import Notifier
from chapps_tw.rest.models.base import Nothing
from chapps_tw.rest.notify_answers import NoticeTest
from chapps_tw.rest.routing import Refusal, Reply, Route
from chapps_tw.security.tokens import Scope

_NOTE = (
    "The test is sent at once, to `admin_address` and to `webhook`, as far as they are set, and takes up to 40 seconds "
    "each. It is not tried again."
)


def routes(current: Callable[[], Notifier | None]) -> Iterator[Route[Any]]:
    """Return all routes of this family.

    :param current: returns what sends notices; ``None`` if none are configured.
    """

    async def test(_: Nothing) -> Reply:
        notifier = current()
        found = await notifier.test() if notifier else {}
        if not found:
            raise Refusal(409, "No test can be sent: see admin_address, webhook and the events in [Notify].")
        return Reply([{"channel": name, "sent": not problem, "problem": problem} for name, problem in found.items()])

    yield Route(
        "POST", "/notify/test/", "Send a test to the administrator and to the webhook", test, answer=NoticeTest,
        errors=(409,), scope=Scope.FULL, tag="notify", note=_NOTE,
    )  # fmt: skip
