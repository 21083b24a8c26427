"""What is asked of which listener."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from bench.book import LIMITED, OVER_QUOTA
from bench.mail import CHECKED, GREYLISTED, inbound_mail, outbound_mail

ACCEPTED = b"action=DUNNO\n"

USERS = range(100)
ONE_LIMIT = range(300, 400)


class Pipeline(NamedTuple):
    """A listener, the requests for it, and the expected prefixes of its answers."""

    title: str
    listener: str
    mail: Callable[[], Iterator[bytes]]
    expected: tuple[bytes, ...] = (ACCEPTED,)


def outbound(title: str, users: Sequence[int], listener: str = "outbound") -> Pipeline:
    """Accepted mail of users in turn."""
    return Pipeline(title, listener, lambda: outbound_mail(users))


PIPELINES = {
    "outbound": outbound("sender authorization, then quota", USERS),
    "refused": Pipeline(
        "a user who is over the quota and goes on; all is refused",
        "outbound",
        lambda: outbound_mail([OVER_QUOTA]),
        (b"action=REJECT Rejected - outbound quota",),
    ),
    "greylisting": Pipeline(
        "greylisting",
        "greylisting",
        lambda: inbound_mail(GREYLISTED),
        (ACCEPTED, b"action=DEFER_IF_PERMIT Service temporarily unavailable - greylisted"),
    ),
    "spf": Pipeline(
        "SPF with cached DNS, then greylisting, which is off",
        "inbound",
        lambda: inbound_mail(CHECKED),
        (ACCEPTED, b"action=PREPEND Received-SPF: "),
    ),
}

# Other users for each number of limits: a message that was counted before costs less.
BY_LIMITS = {
    1: outbound("the quota", ONE_LIMIT),
    4: outbound("an hour and a day of the user, the pool of the domain, and everybody's", LIMITED, "limits"),
}
