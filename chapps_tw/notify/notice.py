"""Notices: what is told to whom, and which events make them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from chapps_tw.config.settings import Notify
from chapps_tw.interfaces.events import KeptEvent
from chapps_tw.mail.addresses import mailbox
from chapps_tw.policies.events import LimitEvent

TEST: Final = "test"
DAILY_REPORT: Final = "daily_report"
"""Kinds of notices that no event makes."""

# What begins the space of an account of a user, and of a section [Limit NAME].
_USERS, _LIMITS = "oqp", "limit"


class Channel(StrEnum):
    """Who is told: a user by mail, the administrator by mail, or the webhook."""

    USER = "user"
    ADMIN = "admin"
    WEBHOOK = "webhook"


class Outcome(NamedTuple):
    """What became of an attempt.

    :ivar problem: ``""``, or why the notice was not taken.
    :ivar is_final: whether it never will be.
    """

    problem: str = ""
    is_final: bool = False


class Notice(NamedTuple):
    """One thing to tell.

    :ivar id: the same on every node that makes it: 32 hexadecimal digits.
    :ivar kind: of the event, or :data:`TEST` or :data:`DAILY_REPORT`.
    :ivar content: JSON. Of an event, its fields: those of a limit are a
        :class:`~chapps_tw.policies.events.LimitEvent`, others a :class:`~chapps_tw.interfaces.events.KeptEvent`.
    :ivar created: epoch seconds.
    :ivar attempts: how often it was tried, with this time.
    """

    id: str
    channel: Channel
    kind: str
    content: str
    created: float
    attempts: int = 0


def notice(channel: Channel, kind: str, content: Mapping[str, object], created: float) -> Notice:
    """Return a notice. Its id is that of all others with the same channel, kind and content."""
    text = json.dumps(content)
    digest = hashlib.sha256("\0".join((channel, kind, text)).encode()).hexdigest()
    return Notice(digest[:32], channel, kind, text, created)


def kinds_of(options: Notify) -> Iterator[tuple[str, str]]:
    """Yield the channels and kinds of notices about events that are configured."""
    events = {
        Channel.USER: options.user_events,
        Channel.ADMIN: options.admin_events,
        Channel.WEBHOOK: options.webhook_events,
    }
    for channel, kinds in events.items():
        for kind in kinds:
            yield channel, kind


def notices_of(event: LimitEvent, options: Notify) -> Iterator[Notice]:
    """Yield what an event has to be told."""
    for channel, kind in kinds_of(options):
        if kind == event.kind and (channel != Channel.USER or address_of(event, options.user_domain)):
            yield notice(Channel(channel), kind, event._asdict(), event.at)


def notices_of_kept(event: KeptEvent, options: Notify) -> Iterator[Notice]:
    """Yield what an event that is no limit's has to be told."""
    for channel, kind in kinds_of(options):
        if kind == event.kind and channel != Channel.USER:
            yield notice(Channel(channel), kind, event._asdict(), event.at)


def kept_event_of(text: str) -> KeptEvent | None:
    """Return the event of a notice; ``None`` for one that another version made in another form."""
    try:
        return KeptEvent(**json.loads(text))
    except (TypeError, ValueError):
        return None


def account_of(event: LimitEvent) -> str:
    """Return the user, client, domain ... that an event is about."""
    is_named = event.space.partition(".")[0] == _LIMITS
    return event.account.removeprefix(f"{event.limit}:") if is_named else event.account


def address_of(event: LimitEvent, user_domain: str) -> str:
    """Return the mail address of the user that an event is about.

    :param user_domain: that of logins that are no addresses; may be ``""``.
    :returns: ``""`` if it is about no user, or the user has none.
    """
    space = event.space.partition(".")[0]
    if space != _USERS and not (space == _LIMITS and event.level == "user"):
        return ""
    login = account_of(event)
    return mailbox(login if "@" in login else f"{login}@{user_domain}")
