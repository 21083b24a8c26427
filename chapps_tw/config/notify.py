"""The section ``[Notify]``: who is told of events, and how."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from chapps_tw.config.sections import option
from chapps_tw.config.values import Secret, addresses, choice, nearest, seconds, text
from chapps_tw.interfaces.events import KINDS, LIMIT_EVENTS
from chapps_tw.mail.addresses import mailbox, normal_domain
from chapps_tw.mail.durations import Duration, parse_duration


@dataclass(frozen=True, slots=True)
class Relay:
    """An SMTP server.

    :ivar host: a name or an address.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """A time of day, in the time zone of the host."""

    hour: int
    minute: int

    def __str__(self) -> str:
        return f"{self.hour:02}:{self.minute:02}"


def _events(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(value: str) -> tuple[str, ...]:
        names = addresses(value)
        wrong = next((name for name in names if name not in known), "")
        if wrong or len(set(names)) < len(names):
            raise ValueError("a list without duplicates of " + ", ".join(known) + nearest(wrong, known))
        return names

    return parse


def _mailbox(value: str) -> str:
    if value and not mailbox(value):
        raise ValueError("one mail address in ASCII, without a name or quotes, such as postmaster@example.com")
    return mailbox(value)


def _domain(value: str) -> str:
    if value and not normal_domain(value):
        raise ValueError("a domain, such as example.com")
    return normal_domain(value)


def _relay(value: str) -> Relay:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]@]+)):(\d{1,5})", value)
    if not match or not 0 < int(match[3]) < 65536:
        raise ValueError("host:port, such as 127.0.0.1:25, or [2001:db8::1]:587")
    return Relay(match[1] or match[2], int(match[3]))


def _time_of_day(value: str) -> TimeOfDay | str:
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", value)
    if value.lower() == "off":
        return "off"
    if not match:
        raise ValueError("off, or a time of day from 00:00 to 23:59, such as 07:30")
    return TimeOfDay(int(match[1]), int(match[2]))


def _duration(least: str, most: str) -> Callable[[str], Duration]:
    bounds = [found.seconds for found in map(parse_duration, (least, most)) if found]

    def parse(value: str) -> Duration:
        duration = parse_duration(value)
        if duration is None or not bounds[0] <= duration.seconds <= bounds[1]:
            raise ValueError(f"a duration with a unit (s, m, h, d or w) from {least} to {most}, such as 1d")
        return duration

    return parse


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("text without control characters")
    return text(value)


@dataclass(frozen=True)
class Notify:
    section: ClassVar[str] = "Notify"
    user_events: tuple[str, ...] = option(
        "", f"Events that users are told by mail: {' '.join(LIMIT_EVENTS)}.", _events(LIMIT_EVENTS)
    )
    admin_events: tuple[str, ...] = option(
        "", f"Events that admin_address is told by mail: {' '.join(KINDS)}.", _events(KINDS)
    )
    webhook_events: tuple[str, ...] = option(
        "", "Events that the webhook is told: the same as in admin_events.", _events(KINDS)
    )
    collect_for: float = option(
        "30", "Seconds that events for admin_address wait for others, to be told in one mail.", seconds(0, 3600)
    )
    daily_report: TimeOfDay | str = option(
        "off", "Time of day at which admin_address gets a report of the last 24 hours, or off.", _time_of_day
    )
    admin_address: str = option("", "Mail address of the administrator.", _mailbox)
    from_address: str = option("", "From address of the mails.", _mailbox)
    contact: str = option(
        "", "Whom users can ask: an address, a telephone number or a URL, for their mails.", _one_line
    )
    user_domain: str = option(
        "", "Domain of the addresses of users whose login is no mail address; if empty, they get no mail.", _domain
    )
    templates: str = option("", "Directory with templates of mails that replace the built-in ones.")
    relay: Relay = option("127.0.0.1:25", "SMTP server that takes the mails, as host:port.", _relay)
    relay_tls: str = option(
        "none",
        "none, starttls or tls (from the beginning). The certificate must be valid for the name of the relay.",
        choice("none", "starttls", "tls"),
    )
    relay_ca_file: str = option(
        "", "File with the PEM certificates of the authorities that the relay may have; if empty, the system's."
    )
    relay_user: str = option("", "User name for the relay.")
    relay_password: Secret = option("", "Password for the relay.", Secret)
    relay_password_file: str = option("", "File that contains the password, instead of relay_password.")
    webhook: Secret = option("", "URL that events are posted to, signed as in Standard Webhooks.", Secret)
    webhook_secret: Secret = option(
        "", "Key of the signatures: whsec_ and base64, or any text of at least 16 characters.", Secret
    )
    webhook_secret_file: str = option("", "File that contains the key, instead of webhook_secret.")
    retry_after: float = option(
        "30", "Seconds until what was not taken is tried again; twice as long each time.", seconds(0.1, 3600)
    )
    give_up_after: Duration = option("1d", "How long it is tried.", _duration("1m", "7d"))

    @property
    def sends_mail(self) -> bool:
        """Whether anything is sent by mail."""
        return bool(self.user_events or self.admin_events or self.daily_report != "off")

    @property
    def is_on(self) -> bool:
        """Whether anything is sent."""
        return self.sends_mail or bool(self.webhook_events)
